//! AMD SEV-SNP: a report, the certificate of the key that signed it, and AMD's two above it.
//!
//! [`verify`] proves that the bytes are a report of a genuine chip; [`VerifiedReport::check`] compares what it says with a
//! policy. Both are needed, and neither knows the binding, which is [`appraise`](crate::appraise)'s.
//!
//! `sev` only parses. Its own chain check would take any self-signed root, and looks at no date, no extension and no policy.
//! Revocation lists are not looked at: `deniedPlatforms` and short certificates stand in for them.

pub mod oid;

mod certificate;
mod refusal;
mod report;
mod roots;

use sev::firmware::guest::AttestationReport;

use self::report::Report;
use crate::ids::{Sha256Digest, UnixTime};
use crate::policy::{AppraisalPolicy, Generation, KeyDigest, Measurement, PlatformId, TcbVersion};
use crate::x509::{AwsLc, Certificate, SignatureScheme};

pub use self::refusal::{Role, SnpRefusal, TcbKind};
pub use self::report::{REPORT_LEN, SIGNED_LEN};
pub use self::roots::{Anchor, SimulatedRootRefusal};
pub use crate::x509::CertificateRefusal;

/// Common name of a chip's certificate; a VLEK's, which a cloud provider holds for many chips, is another.
const VCEK_NAME: &str = "SEV-VCEK";
/// Bits 63:26 of the guest's policy must be zero, bit 17 must be one.
const POLICY_ZERO_BITS: u64 = !((1 << 26) - 1);
const POLICY_ONE_BIT: u64 = 1 << 17;

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
    fields: AttestationReport,
    guest_policy: u64,
    generation: Generation,
    valid_until: UnixTime,
}

/// Verifies that `report` is signed by the key of `vek`, that certificate by the chain above it, that all are valid at `now`,
/// and that the certificate is of the chip and the firmware that the report names.
///
/// # Errors
/// [`SnpRefusal`] names the first thing that does not hold.
pub fn verify(report: &[u8], vek: &[u8], trust: Trust<'_>, now: UnixTime) -> Result<VerifiedReport, SnpRefusal> {
    let report = Report::parse(report)?;
    let of_vcek = SnpRefusal::certificate(Role::Vcek);
    let vcek = Certificate::parse(vek, &[]).map_err(&of_vcek)?;
    let generation = certificate::generation(&vcek).map_err(&of_vcek)?;
    let built_in;
    let anchor = match trust {
        Trust::Simulated(anchor) => anchor,
        Trust::Amd => {
            built_in = Anchor::amd(generation)?;
            &built_in
        }
    };
    let valid_until = check_chain(&vcek, anchor, now)?;
    let signed = vcek
        .has_signed(
            SignatureScheme::EcdsaP384Fixed,
            report.signed,
            &report.signature,
            &AwsLc,
        )
        .map_err(&of_vcek)?;
    if !signed {
        return Err(SnpRefusal::Signature);
    }
    // Of AMD's, this is now also the root's: each signs for one generation.
    if report.generation.is_some_and(|found| found != generation) {
        return Err(SnpRefusal::GenerationMismatch(generation));
    }
    check_chip(&report.fields, &vcek, generation)?;
    Ok(VerifiedReport {
        fields: report.fields,
        guest_policy: report.guest_policy,
        generation,
        valid_until,
    })
}

/// Checks VCEK, ASK and ARK, and answers with the end of the shortest validity.
fn check_chain(vcek: &Certificate<'_>, anchor: &Anchor, now: UnixTime) -> Result<UnixTime, SnpRefusal> {
    let (ark, ask) = (anchor.ark()?, anchor.ask()?);
    let all = [
        (Role::Ark, &ark, &ark),
        (Role::Ask, &ask, &ark),
        (Role::Vcek, vcek, &ask),
    ];
    for (role, certificate, issuer) in all {
        certificate
            .check_issued_by(issuer, SignatureScheme::RsaPssSha384, &AwsLc)
            .map_err(SnpRefusal::certificate(role))?;
        certificate.check_dates(now).map_err(SnpRefusal::certificate(role))?;
    }
    ark.check_authority(1).map_err(SnpRefusal::certificate(Role::Ark))?;
    ask.check_authority(0).map_err(SnpRefusal::certificate(Role::Ask))?;
    vcek.check_not_authority()
        .map_err(SnpRefusal::certificate(Role::Vcek))?;
    if vcek.common_name() != Some(VCEK_NAME) {
        return Err(SnpRefusal::certificate(Role::Vcek)(CertificateRefusal::CommonName));
    }
    Ok(vcek.not_after().min(ask.not_after()).min(ark.not_after()))
}

/// Checks that the certificate is of the report's chip at the report's firmware: one of an older firmware's key, leaked with
/// that firmware, would otherwise vouch for a newer one.
fn check_chip(report: &AttestationReport, vcek: &Certificate<'_>, generation: Generation) -> Result<(), SnpRefusal> {
    let of_vcek = SnpRefusal::certificate(Role::Vcek);
    if certificate::tcb(vcek, generation).map_err(&of_vcek)? != TcbVersion::from(report.reported_tcb) {
        return Err(SnpRefusal::TcbMismatch);
    }
    if certificate::hardware_id(vcek, generation).map_err(&of_vcek)? != report.chip_id {
        return Err(SnpRefusal::ChipMismatch);
    }
    Ok(())
}

impl VerifiedReport {
    /// Compares everything that the report says with `policy`, but for the binding.
    ///
    /// # Errors
    /// [`SnpRefusal`] names the first thing that is not allowed.
    pub fn check(&self, policy: &AppraisalPolicy) -> Result<(), SnpRefusal> {
        self.check_platform(policy)?;
        self.check_guest_policy()?;
        self.check_tcb(policy)?;
        self.check_identity(policy)
    }

    /// The 64 bytes that the guest chose.
    #[must_use]
    pub const fn report_data(&self) -> &[u8; 64] {
        &self.fields.report_data
    }

    /// The chip.
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

    fn check_platform(&self, policy: &AppraisalPolicy) -> Result<(), SnpRefusal> {
        let least = policy.min_report_version.value();
        if self.fields.version < least {
            return Err(SnpRefusal::OldVersion {
                found: self.fields.version,
                least,
            });
        }
        if !policy.allowed_generations.contains(&self.generation) {
            return Err(SnpRefusal::Generation(self.generation));
        }
        if policy.denied_platforms.contains(&self.platform_id()) {
            return Err(SnpRefusal::DeniedPlatform(self.platform_id()));
        }
        if !self.fields.plat_info.alias_check_complete() && !policy.danger.skip_alias_check {
            return Err(SnpRefusal::AliasCheck);
        }
        Ok(())
    }

    fn check_guest_policy(&self) -> Result<(), SnpRefusal> {
        let guest = self.fields.policy;
        if self.fields.vmpl != 0 {
            return Err(SnpRefusal::Vmpl(self.fields.vmpl));
        }
        if guest.debug_allowed() {
            return Err(SnpRefusal::Debug);
        }
        if guest.migrate_ma_allowed() {
            return Err(SnpRefusal::MigrationAgent);
        }
        if self.guest_policy & POLICY_ONE_BIT == 0 || self.guest_policy & POLICY_ZERO_BITS != 0 {
            return Err(SnpRefusal::ReservedPolicyBits);
        }
        Ok(())
    }

    fn check_tcb(&self, policy: &AppraisalPolicy) -> Result<(), SnpRefusal> {
        let floor = policy
            .min_tcb
            .get(&self.generation)
            .ok_or(SnpRefusal::NoTcbFloor(self.generation))?;
        for (kind, tcb) in [
            (TcbKind::Reported, self.fields.reported_tcb),
            (TcbKind::Current, self.fields.current_tcb),
            (TcbKind::Committed, self.fields.committed_tcb),
            (TcbKind::Launch, self.fields.launch_tcb),
        ] {
            let found = TcbVersion::from(tcb);
            if !found.reaches(floor) {
                return Err(SnpRefusal::TcbBelowFloor { kind, found });
            }
        }
        Ok(())
    }

    fn check_identity(&self, policy: &AppraisalPolicy) -> Result<(), SnpRefusal> {
        let measurement = self.measurement();
        if !policy.measurements.contains(&measurement) {
            return Err(SnpRefusal::Measurement(measurement));
        }
        let host_data = Sha256Digest::from_bytes(self.fields.host_data);
        if !policy.host_data.contains(&host_data) {
            return Err(SnpRefusal::HostData(host_data));
        }
        let id_key = KeyDigest::from_bytes(self.fields.id_key_digest);
        if !policy.id_key_digests.is_empty() && !policy.id_key_digests.contains(&id_key) {
            return Err(SnpRefusal::IdKey(id_key));
        }
        let author_key = KeyDigest::from_bytes(self.fields.author_key_digest);
        if !policy.author_key_digests.is_empty() && !policy.author_key_digests.contains(&author_key) {
            return Err(SnpRefusal::AuthorKey(author_key));
        }
        Ok(())
    }
}
