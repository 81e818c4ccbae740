//! AMD SEV-SNP: a report, the certificate of the key that signed it, and AMD's two above it.
//!
//! [`verify`] proves that the bytes are a report of a genuine chip; [`VerifiedReport::check`] compares what it says with a
//! policy. Both are needed, and neither knows the binding, which is [`appraise`](crate::appraise)'s.
//!
//! The key is the chip's own (VCEK, under the ASK) or one that a cloud provider holds for many chips (VLEK, under the ASVK). The
//! report says which, and the certificate's name has to say the same: neither is ever taken for the other.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod oid;

mod certificate;
mod check;
mod claims;
mod crl;
mod policy;
mod refusal;
mod report;
mod roots;

use self::claims::Tcbs;
use self::report::{Fields, Report, SigningKey};
use crate::ids::UnixTime;
use crate::policy::{Generation, Measurement, PlatformId};
use crate::x509::{AwsLc, Certificate, SignatureScheme, pem_certificates};

pub use self::claims::{GuestPolicyClaims, PlatformClaims, ReportedTcb, SnpClaims};
pub use self::crl::{CrlRefusal, MAX_CRL_LEN, crl_next_update};
pub use self::policy::{MaxVmpl, SnpPolicy};
pub use self::refusal::{Role, SnpRefusal, TcbKind};
pub use self::report::{REPORT_LEN, SIGNED_LEN};
pub use self::roots::{Anchor, SimulatedRootRefusal};
pub use crate::x509::CertificateRefusal;

/// Common name of a chip's certificate.
const VCEK_NAME: &str = "SEV-VCEK";
/// Common name of the certificate of a provider's key.
const VLEK_NAME: &str = "SEV-VLEK";
/// Most certificates in a PEM text for [`vek_der`]: the key's own, and AMD's three.
const MAX_CHAIN: usize = 4;

/// Whose root may be behind a report.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// AMD's, built in, of the generation that the chip's certificate names.
    Amd,
    /// The SIMULATED root that a policy names.
    Simulated(&'a Anchor),
}

/// A report that a genuine key signed. Built only by [`verify`].
#[derive(Debug, Clone)]
pub struct VerifiedReport {
    fields: Fields,
    tcb: Tcbs,
    generation: Generation,
    /// The cloud provider whose key signed, if it was not the chip's own.
    provider: Option<String>,
    anchor: Anchor,
    simulated: bool,
    vek_serial: Vec<u8>,
    verified_at: UnixTime,
    valid_until: UnixTime,
}

/// Verifies that `report` is signed by the key of `vek`, that certificate by the chain above it, that all are valid at `now`,
/// and that the certificate is of the firmware, and unless it is a provider's of the chip, that the report names.
///
/// # Errors
/// [`SnpRefusal`] names the first thing that does not hold.
pub fn verify(report: &[u8], vek: &[u8], trust: Trust<'_>, now: UnixTime) -> Result<VerifiedReport, SnpRefusal> {
    let report = Report::parse(report)?;
    let key = report.fields.signing_key;
    let (role, name) = match key {
        SigningKey::Vcek => (Role::Vcek, VCEK_NAME),
        SigningKey::Vlek => (Role::Vlek, VLEK_NAME),
    };
    let of_vek = SnpRefusal::certificate(role);
    let vek = Certificate::parse(vek, &[]).map_err(&of_vek)?;
    if vek.common_name() != Some(name) {
        return Err(of_vek(CertificateRefusal::CommonName));
    }
    let generation = certificate::generation(&vek).map_err(&of_vek)?;
    let anchor = match trust {
        Trust::Simulated(anchor) => anchor.clone(),
        Trust::Amd => Anchor::amd(generation)?,
    };
    let valid_until = check_chain(&vek, role, key, &anchor, now)?;
    let signed = vek
        .has_signed(
            SignatureScheme::EcdsaP384Fixed,
            report.signed,
            &report.signature,
            &AwsLc,
        )
        .map_err(&of_vek)?;
    if !signed {
        return Err(SnpRefusal::Signature);
    }
    // Of AMD's, this is now also the root's: each signs for one generation.
    if report.generation.is_some_and(|found| found != generation) {
        return Err(SnpRefusal::GenerationMismatch(generation));
    }
    let tcb = Tcbs::of(&report.fields, generation)?;
    check_firmware_and_chip(&report.fields, &tcb, &vek, generation, &of_vek)?;
    Ok(VerifiedReport {
        provider: match key {
            SigningKey::Vcek => None,
            SigningKey::Vlek => Some(certificate::provider(&vek).map_err(&of_vek)?),
        },
        fields: report.fields,
        tcb,
        generation,
        anchor,
        simulated: matches!(trust, Trust::Simulated(_)),
        vek_serial: vek.serial().to_vec(),
        verified_at: now,
        valid_until,
    })
}

/// Checks the three certificates, and answers with the end of the shortest validity.
fn check_chain(
    vek: &Certificate<'_>,
    role: Role,
    key: SigningKey,
    anchor: &Anchor,
    now: UnixTime,
) -> Result<UnixTime, SnpRefusal> {
    let (ark, above) = (anchor.ark()?, anchor.intermediate(key)?);
    let above_role = match key {
        SigningKey::Vcek => Role::Ask,
        SigningKey::Vlek => Role::Asvk,
    };
    for (role, certificate, issuer) in [(Role::Ark, &ark, &ark), (above_role, &above, &ark), (role, vek, &above)] {
        let refused = SnpRefusal::certificate(role);
        certificate
            .check_issued_by(issuer, SignatureScheme::RsaPssSha384, &AwsLc)
            .map_err(&refused)?;
        certificate.check_dates(now).map_err(&refused)?;
    }
    ark.check_authority(1).map_err(SnpRefusal::certificate(Role::Ark))?;
    above.check_authority(0).map_err(SnpRefusal::certificate(above_role))?;
    vek.check_not_authority().map_err(SnpRefusal::certificate(role))?;
    Ok(vek.not_after().min(above.not_after()).min(ark.not_after()))
}

/// Checks that the certificate is of the report's chip at the report's firmware: one of an older firmware's key, leaked with
/// that firmware, would otherwise vouch for a newer one. A provider's names no chip.
fn check_firmware_and_chip(
    fields: &Fields,
    tcb: &Tcbs,
    vek: &Certificate<'_>,
    generation: Generation,
    of_vek: impl Fn(CertificateRefusal) -> SnpRefusal,
) -> Result<(), SnpRefusal> {
    if certificate::tcb(vek, generation).map_err(&of_vek)? != tcb.reported {
        return Err(SnpRefusal::TcbMismatch);
    }
    let of_chip = fields.signing_key == SigningKey::Vcek;
    if of_chip && certificate::hardware_id(vek, generation).map_err(&of_vek)? != fields.chip_id {
        return Err(SnpRefusal::ChipMismatch);
    }
    Ok(())
}

/// DER of the certificate of the key that signed: from DER, or from PEM in which it comes first. What follows it there is AMD's
/// chain, which is built in here and not looked at.
///
/// # Errors
/// [`SnpRefusal::Certificate`] if it is neither.
pub fn vek_der(bytes: &[u8]) -> Result<Vec<u8>, SnpRefusal> {
    let malformed = || SnpRefusal::certificate(Role::Vcek)(CertificateRefusal::Malformed);
    // No DER of a certificate begins with a dash.
    if bytes.trim_ascii_start().first() != Some(&b'-') {
        return Ok(bytes.to_vec());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| malformed())?;
    let found = pem_certificates(text, MAX_CHAIN).map_err(|_| malformed())?;
    found.into_iter().next().ok_or_else(malformed)
}

impl VerifiedReport {
    /// The 64 bytes that the guest chose.
    #[must_use]
    pub const fn report_data(&self) -> &[u8; 64] {
        &self.fields.report_data
    }

    /// The chip; zeros if the platform masks it, which only a report by a provider's key may.
    #[must_use]
    pub const fn platform_id(&self) -> PlatformId {
        PlatformId::from_bytes(self.fields.chip_id)
    }

    /// What was measured when the guest was launched.
    #[must_use]
    pub const fn measurement(&self) -> Measurement {
        Measurement::from_bytes(self.fields.measurement)
    }

    /// Generation of the chip.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Last second in which all of the chain is valid.
    #[must_use]
    pub const fn valid_until(&self) -> UnixTime {
        self.valid_until
    }

    fn names_chip(&self) -> bool {
        self.fields.chip_id != [0; 64]
    }
}
