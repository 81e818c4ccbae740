//! The keys that everything rests on: AMD's, built in, or the SIMULATED one that a policy names.

use super::refusal::{Role, SnpRefusal};
use crate::identity::sha256;
use crate::ids::Sha256Digest;
use crate::policy::Generation;
use crate::x509::{Certificate, CertificateRefusal, pem_certificates};

/// Root and intermediate in DER. Made only by [`Anchor::amd`] and [`Anchor::simulated`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    ark: Vec<u8>,
    ask: Vec<u8>,
}

/// A SIMULATED chain that cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimulatedRootRefusal {
    /// Not PEM of exactly two certificates.
    #[error("SIMULATED chain is not PEM of exactly an intermediate and a root certificate")]
    Malformed,
    /// The root is not the one that the policy names.
    #[error("SIMULATED root {found} is not the one of the policy's danger.simulatedTee")]
    OtherRoot {
        /// SHA-256 of its DER.
        found: Sha256Digest,
    },
}

impl Anchor {
    /// The built-in root and intermediate of AMD for `generation`; `roots/SOURCES.md` says where they are from.
    ///
    /// # Errors
    /// [`SnpRefusal::Certificate`] if a built-in file is damaged.
    pub fn amd(generation: Generation) -> Result<Self, SnpRefusal> {
        let (ark, ask) = match generation {
            Generation::Milan => (include_str!("roots/ark_milan.pem"), include_str!("roots/ask_milan.pem")),
            Generation::Genoa => (include_str!("roots/ark_genoa.pem"), include_str!("roots/ask_genoa.pem")),
            Generation::Turin => (include_str!("roots/ark_turin.pem"), include_str!("roots/ask_turin.pem")),
        };
        let der = |role, pem: &str| {
            let malformed = SnpRefusal::certificate(role);
            certificate_der(pem).ok_or_else(|| malformed(CertificateRefusal::Malformed))
        };
        Ok(Self {
            ark: der(Role::Ark, ark)?,
            ask: der(Role::Ask, ask)?,
        })
    }

    /// The SIMULATED root of `chain` (PEM: intermediate, then root), if it is the one whose SHA-256 is `trusted`.
    ///
    /// # Errors
    /// [`SimulatedRootRefusal`] for any other root, and any other number of certificates.
    pub fn simulated(chain: &str, trusted: &Sha256Digest) -> Result<Self, SimulatedRootRefusal> {
        let [ask, ark] = split_chain(chain).ok_or(SimulatedRootRefusal::Malformed)?;
        let found = sha256(&[&ark]);
        if found != *trusted {
            return Err(SimulatedRootRefusal::OtherRoot { found });
        }
        Ok(Self { ark, ask })
    }

    pub(super) fn ark(&self) -> Result<Certificate<'_>, SnpRefusal> {
        Certificate::parse(&self.ark, &[]).map_err(SnpRefusal::certificate(Role::Ark))
    }

    pub(super) fn ask(&self) -> Result<Certificate<'_>, SnpRefusal> {
        Certificate::parse(&self.ask, &[]).map_err(SnpRefusal::certificate(Role::Ask))
    }
}

/// Exactly two certificates, with nothing but white space around them.
fn split_chain(chain: &str) -> Option<[Vec<u8>; 2]> {
    let [intermediate, root] = <[Vec<u8>; 2]>::try_from(pem_certificates(chain, 2).ok()?).ok()?;
    // What is hashed is what is parsed: a certificate and nothing after it.
    (Certificate::parse(&intermediate, &[]).is_ok() && Certificate::parse(&root, &[]).is_ok())
        .then_some([intermediate, root])
}

/// The one certificate of `pem`.
fn certificate_der(pem: &str) -> Option<Vec<u8>> {
    let [der] = <[Vec<u8>; 1]>::try_from(pem_certificates(pem, 1).ok()?).ok()?;
    Some(der)
}
