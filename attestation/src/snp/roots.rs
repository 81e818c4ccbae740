//! The keys that everything rests on: AMD's, built in, or the SIMULATED ones that a policy names.

use super::refusal::{Role, SnpRefusal};
use super::report::SigningKey;
use crate::identity::sha256;
use crate::ids::Sha256Digest;
use crate::policy::Generation;
use crate::x509::{Certificate, CertificateRefusal, pem_certificates};

/// Root and intermediates in DER. Made only by [`Anchor::amd`] and [`Anchor::simulated`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    ark: Vec<u8>,
    /// Over chips.
    ask: Vec<u8>,
    /// Over providers.
    asvk: Option<Vec<u8>>,
}

/// A SIMULATED chain that cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimulatedRootRefusal {
    /// Not PEM of exactly its certificates.
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
    /// The built-in root and intermediates of AMD for `generation`; `roots/SOURCES.md` says where they are from.
    ///
    /// # Errors
    /// [`SnpRefusal::Certificate`] if a built-in file is damaged.
    pub fn amd(generation: Generation) -> Result<Self, SnpRefusal> {
        let (ark, ask, asvk) = match generation {
            Generation::Milan => (
                include_str!("roots/ark_milan.pem"),
                include_str!("roots/ask_milan.pem"),
                include_str!("roots/asvk_milan.pem"),
            ),
            Generation::Genoa => (
                include_str!("roots/ark_genoa.pem"),
                include_str!("roots/ask_genoa.pem"),
                include_str!("roots/asvk_genoa.pem"),
            ),
            Generation::Turin => (
                include_str!("roots/ark_turin.pem"),
                include_str!("roots/ask_turin.pem"),
                include_str!("roots/asvk_turin.pem"),
            ),
        };
        let der = |role, pem| {
            let one = pem_certificates(pem, 1).ok();
            let one = one.and_then(|found| <[Vec<u8>; 1]>::try_from(found).ok());
            let [der] = one.ok_or(SnpRefusal::certificate(role)(CertificateRefusal::Malformed))?;
            Ok(der)
        };
        Ok(Self {
            ark: der(Role::Ark, ark)?,
            ask: der(Role::Ask, ask)?,
            asvk: Some(der(Role::Asvk, asvk)?),
        })
    }

    /// The SIMULATED root of `chain` (PEM: intermediate, then root), if it is the one whose SHA-256 is `trusted`.
    ///
    /// # Errors
    /// [`SimulatedRootRefusal`] for any other root, and any other number of certificates.
    pub fn simulated(chain: &str, trusted: &Sha256Digest) -> Result<Self, SimulatedRootRefusal> {
        let [ask, ark] = parts(chain)?;
        Self::named(ark, ask, None, trusted)
    }

    /// The same with a third certificate, the intermediate over providers' keys, in the order of AMD's own files. No evidence
    /// brings one: it is for tests of what a provider's key may sign.
    ///
    /// # Errors
    /// [`SimulatedRootRefusal`] as above.
    pub fn simulated_with_providers(chain: &str, trusted: &Sha256Digest) -> Result<Self, SimulatedRootRefusal> {
        let [ask, ark, asvk] = parts(chain)?;
        Self::named(ark, ask, Some(asvk), trusted)
    }

    fn named(
        ark: Vec<u8>,
        ask: Vec<u8>,
        asvk: Option<Vec<u8>>,
        trusted: &Sha256Digest,
    ) -> Result<Self, SimulatedRootRefusal> {
        let found = sha256(&[&ark]);
        if found != *trusted {
            return Err(SimulatedRootRefusal::OtherRoot { found });
        }
        Ok(Self { ark, ask, asvk })
    }

    pub(super) fn ark(&self) -> Result<Certificate<'_>, SnpRefusal> {
        Certificate::parse(&self.ark, &[]).map_err(SnpRefusal::certificate(Role::Ark))
    }

    /// The one over keys of this kind.
    pub(super) fn intermediate(&self, key: SigningKey) -> Result<Certificate<'_>, SnpRefusal> {
        match key {
            SigningKey::Vcek => Certificate::parse(&self.ask, &[]).map_err(SnpRefusal::certificate(Role::Ask)),
            SigningKey::Vlek => {
                let asvk = self.asvk.as_deref().ok_or(SnpRefusal::NoProviders)?;
                Certificate::parse(asvk, &[]).map_err(SnpRefusal::certificate(Role::Asvk))
            }
        }
    }
}

/// Exactly `N` certificates, each of which is one and nothing after it: what is hashed is what is parsed.
fn parts<const N: usize>(chain: &str) -> Result<[Vec<u8>; N], SimulatedRootRefusal> {
    let found = pem_certificates(chain, N).map_err(|_| SimulatedRootRefusal::Malformed)?;
    let malformed = |der: &Vec<u8>| matches!(Certificate::parse(der, &[]), Err(CertificateRefusal::Malformed));
    if found.iter().any(malformed) {
        return Err(SimulatedRootRefusal::Malformed);
    }
    found.try_into().map_err(|_| SimulatedRootRefusal::Malformed)
}
