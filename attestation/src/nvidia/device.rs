//! One device: what its report proves, and what a policy says of it.

use super::chain::{self, Anchor, VerifiedChain};
use super::ocsp::{self, OcspResponse, Revocation};
use super::opaque::{Opaque, PDI_LEN, Pdi, kind};
use super::policy::{
    DEFAULT_REVOCATION_AGE, DeviceArch, DeviceSerial, DriverVersion, FeatureMode, NvidiaPolicy, VbiosVersion,
};
use super::refusal::{CcMode, NvidiaRefusal, ReportRefusal};
use super::rim::{Appraised, Board, RimId, RimRefusal, RimStore};
use super::spdm::{DIGEST_LEN, Measurements, NONCE_LEN, Report};
use crate::check::{Checks, Dimension, Finding};
use crate::ids::{Sha256Digest, UnixTime};
use crate::rules::Rules;
use crate::x509::{AwsLc, SignatureVerifier};

/// First byte of the serial number of a device's certificate, before its identity on the links.
const GPU_PREFIX: u8 = 0x41;
const SWITCH_PREFIX: u8 = 0x50;

/// Chip of the switches in the names of their references.
const SWITCH_CHIP: &str = "LS10";

/// A report that a genuine device signed. Built only by [`verify`] and what it is made of.
#[derive(Debug, Clone)]
pub struct VerifiedDevice {
    pub(super) chain: VerifiedChain,
    pub(super) report: Report,
}

/// What somebody who can be trusted read of a GPU's state, in the guest: no report says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceState {
    /// Confidential computing.
    pub cc: CcMode,
    /// Whether the GPU takes work.
    pub ready: bool,
}

/// What a report is compared with, beside the rules.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Nonce that the report has to answer.
    pub nonce: Option<&'a [u8; NONCE_LEN]>,
    /// State of the GPU, if somebody read it.
    pub state: Option<DeviceState>,
    /// Signed references, for any devices.
    pub rims: Option<&'a RimStore>,
    /// OCSP responses, for any certificates.
    pub ocsp: &'a [OcspResponse],
    /// Now.
    pub now: UnixTime,
}

/// Names of the checks that claims are read from.
pub(super) mod what {
    pub(crate) const NONCE: &str = "report answers the nonce";
    pub(crate) const FWID: &str = "key was made for the firmware of the report (FWID)";
    pub(crate) const REVOCATION: &str = "no certificate of the chain is revoked (OCSP)";
    pub(crate) const MEASUREMENTS: &str = "measurements equal the signed references (RIM)";
}

/// Verifies that `evidence` is signed by the key of `certificate_chain_pem`, that the chain is of a device of `arch` and ends
/// in NVIDIA's root, and that all of it is valid at `now`.
///
/// # Errors
/// [`NvidiaRefusal`] names the first thing that does not hold.
pub fn verify(
    evidence: &[u8],
    certificate_chain_pem: &str,
    arch: DeviceArch,
    now: UnixTime,
) -> Result<VerifiedDevice, NvidiaRefusal> {
    let chain = chain::verify(certificate_chain_pem, arch, now)?;
    verify_report(evidence, chain, now)
}

/// [`verify`] with a chain that was verified before.
///
/// # Errors
/// [`NvidiaRefusal`] names the first thing that does not hold.
pub fn verify_report(evidence: &[u8], chain: VerifiedChain, now: UnixTime) -> Result<VerifiedDevice, NvidiaRefusal> {
    verify_report_by(evidence, chain, now, &AwsLc)
}

fn verify_report_by(
    evidence: &[u8],
    chain: VerifiedChain,
    now: UnixTime,
    crypto: &dyn SignatureVerifier,
) -> Result<VerifiedDevice, NvidiaRefusal> {
    chain.check_dates(now)?;
    let report = Report::parse(evidence)?;
    if !chain.has_signed(&report.signed, &report.signature, crypto)? {
        return Err(NvidiaRefusal::Signature);
    }
    match (&report.opaque.fwid, &chain.fwid) {
        (Some(said), Some(certified)) if said == certified => {}
        (Some(_), Some(_)) => return Err(NvidiaRefusal::FwidMismatch),
        (Some(_), None) => return Err(NvidiaRefusal::FwidMissingInCertificate),
        (None, _) => {}
    }
    if chain.arch.is_gpu() && report.opaque.driver.is_none() {
        return Err(ReportRefusal::MissingField(kind::DRIVER).into());
    }
    Ok(VerifiedDevice { chain, report })
}

/// Weakenings, for rehearsals and tests.
pub mod danger {
    use super::{Anchor, DeviceArch, NvidiaRefusal, SignatureVerifier, UnixTime, VerifiedChain, VerifiedDevice, chain};

    /// Verifies a chain that ends in the root `root` (DER), which is not NVIDIA's: whoever has its key makes devices of it.
    ///
    /// # Errors
    /// [`NvidiaRefusal`] names the first thing that does not hold.
    pub fn verify_chain_under(
        root: &[u8],
        pem: &str,
        arch: DeviceArch,
        now: UnixTime,
    ) -> Result<VerifiedChain, NvidiaRefusal> {
        chain::verify_under(&Anchor(root.to_vec()), pem, arch, now, &super::AwsLc)
    }

    /// [`verify`](super::verify) by other cryptography.
    ///
    /// # Errors
    /// [`NvidiaRefusal`] names the first thing that does not hold.
    pub fn verify_by(
        crypto: &dyn SignatureVerifier,
        evidence: &[u8],
        pem: &str,
        arch: DeviceArch,
        now: UnixTime,
    ) -> Result<VerifiedDevice, NvidiaRefusal> {
        let chain = chain::verify_under(&Anchor::nvidia()?, pem, arch, now, crypto)?;
        super::verify_report_by(evidence, chain, now, crypto)
    }
}

// === impl VerifiedDevice ===

impl VerifiedDevice {
    /// Everything that the rules say of the report and its chain, but for what several devices say together, which is
    /// [`fleet`](super::fleet)'s.
    #[must_use]
    pub fn check(&self, rules: Rules<'_>, expected: &Expected<'_>) -> Checks<NvidiaRefusal> {
        let mut checks = Checks::new();
        checks.require(Dimension::Hardware, "report and certificates are genuine", Ok(()));
        match expected.nonce {
            Some(nonce) if *nonce == self.report.nonce => {
                checks.require(Dimension::InstanceIdentity, what::NONCE, Ok(()));
            }
            Some(_) => checks.require(Dimension::InstanceIdentity, what::NONCE, Err(NvidiaRefusal::Nonce)),
            None => checks.skip(Dimension::InstanceIdentity, what::NONCE),
        }
        let policy = rules.policy().map(|policy| &policy.nvidia);
        self.check_fwid(policy, &mut checks);
        self.check_revocation(policy, expected, &mut checks);
        self.check_state(policy, expected.state, &mut checks);
        let measurements = self.check_measurements(policy, expected);
        checks.push(Dimension::Executables, what::MEASUREMENTS, measurements);
        match policy {
            Some(policy) => self.check_policy(policy, &mut checks),
            None => {
                checks.skip(Dimension::InstanceIdentity, "device is in the inventory");
                checks.skip(Dimension::Executables, "driver and VBIOS are allowed");
            }
        }
        checks
    }

    fn check_fwid(&self, policy: Option<&NvidiaPolicy>, checks: &mut Checks<NvidiaRefusal>) {
        // No switch names it.
        let needed = self.arch().is_gpu() && policy.is_some_and(|policy| policy.require_fwid);
        match (self.report.opaque.fwid, needed) {
            (Some(_), _) => checks.require(Dimension::Hardware, what::FWID, Ok(())),
            (None, true) => checks.require(Dimension::Hardware, what::FWID, Err(NvidiaRefusal::FwidMissing)),
            (None, false) => checks.skip(Dimension::Hardware, what::FWID),
        }
    }

    fn check_measurements(&self, policy: Option<&NvidiaPolicy>, expected: &Expected<'_>) -> Finding<NvidiaRefusal> {
        let required = policy.is_some_and(|policy| policy.require_rims);
        let missing = |refusal| {
            if required {
                Finding::Refused(refusal)
            } else {
                Finding::NotAppraised
            }
        };
        let Some(store) = expected.rims else {
            return missing(NvidiaRefusal::RimMissing);
        };
        match self.compare(store, expected.now) {
            Ok(found) if found.comparison.matches() => Finding::Passed,
            Ok(found) => Finding::Refused(NvidiaRefusal::Measurements(found.comparison.mismatching)),
            // What can be compared is, so that leaving out one manifest does not hide that the device differs from the other.
            Err(absent @ RimRefusal::Missing(_)) => match self.compare_those_there(store, expected.now) {
                Ok(found) if !found.comparison.mismatching.is_empty() => {
                    Finding::Refused(NvidiaRefusal::Measurements(found.comparison.mismatching))
                }
                _ => missing(absent.into()),
            },
            Err(refusal) => Finding::Refused(refusal.into()),
        }
    }

    /// Compares the measurements with the signed references of the device's driver and VBIOS, or of the switch's BIOS.
    ///
    /// # Errors
    /// [`RimRefusal`] if there is no reference that holds, or if they do not belong together. That the device does not match
    /// is no error.
    pub fn compare(&self, store: &RimStore, now: UnixTime) -> Result<Appraised, RimRefusal> {
        self.compare_with(store, &self.rim_ids(), now)
    }

    fn compare_those_there(&self, store: &RimStore, now: UnixTime) -> Result<Appraised, RimRefusal> {
        let mut ids = self.rim_ids();
        ids.retain(|id| store.find(id, now).is_ok());
        self.compare_with(store, &ids, now)
    }

    fn compare_with(&self, store: &RimStore, ids: &[RimId], now: UnixTime) -> Result<Appraised, RimRefusal> {
        let nvdec0 = self
            .opaque()
            .field(kind::NVDEC0)
            .and_then(|state| state.first().copied());
        let measured = |index| self.measurements().get(index).map(<[u8; DIGEST_LEN]>::as_slice);
        store.appraise(ids, now, nvdec0, measured)
    }

    /// Names of the signed references that the device calls for.
    #[must_use]
    pub fn rim_ids(&self) -> Vec<RimId> {
        let vbios = self.vbios().to_string();
        let Some(driver) = self.driver() else {
            return vec![RimId::switch(SWITCH_CHIP, switch_board(), &vbios)];
        };
        let opaque = self.opaque();
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let board = Board {
            project: text(&opaque.project),
            project_sku: text(&opaque.project_sku),
            chip_sku: text(&opaque.chip_sku),
        };
        vec![
            RimId::driver(self.chip(), driver.as_str()),
            RimId::vbios(self.chip(), board, &vbios),
        ]
    }

    fn check_revocation(
        &self,
        policy: Option<&NvidiaPolicy>,
        expected: &Expected<'_>,
        checks: &mut Checks<NvidiaRefusal>,
    ) {
        let found = self.revocation(policy, expected);
        let tolerated = |status: Revocation| match status {
            Revocation::Good => true,
            Revocation::OnHold => policy.is_some_and(|policy| policy.revocation.allow_hold),
            Revocation::Unknown => policy.is_none_or(|policy| policy.revocation.allow_unknown),
            Revocation::Stale => policy.is_some_and(|policy| policy.revocation.allow_unknown),
            Revocation::Revoked(_) => false,
        };
        let finding = match found {
            Err(refusal) => Finding::Refused(refusal),
            Ok(all) => match all.iter().find(|(_, status)| !tolerated(*status)) {
                Some((role, status)) => Finding::Refused(NvidiaRefusal::Revocation {
                    role: *role,
                    status: *status,
                }),
                None if all.iter().all(|(_, status)| *status == Revocation::Good) => Finding::Passed,
                None => match all.iter().find(|(_, status)| *status == Revocation::OnHold) {
                    Some((role, status)) => Finding::Warned(NvidiaRefusal::Revocation {
                        role: *role,
                        status: *status,
                    }),
                    None => Finding::NotAppraised,
                },
            },
        };
        checks.push(Dimension::Hardware, what::REVOCATION, finding);
    }

    fn revocation(
        &self,
        policy: Option<&NvidiaPolicy>,
        expected: &Expected<'_>,
    ) -> Result<Vec<(super::Role, Revocation)>, NvidiaRefusal> {
        let max_age = policy.map_or(DEFAULT_REVOCATION_AGE, |policy| policy.revocation.max_age_seconds);
        ocsp::of_chain(&self.chain, expected.ocsp, expected.now, max_age)
    }

    fn check_state(
        &self,
        policy: Option<&NvidiaPolicy>,
        state: Option<DeviceState>,
        checks: &mut Checks<NvidiaRefusal>,
    ) {
        const CC: &str = "confidential computing is on";
        const READY: &str = "GPU is ready";
        if !self.arch().is_gpu() {
            return;
        }
        match state {
            Some(state) => {
                let cc = match state.cc {
                    CcMode::On => Ok(()),
                    other => Err(NvidiaRefusal::CcMode(other)),
                };
                checks.require(Dimension::Configuration, CC, cc);
                let ready = state.ready.then_some(()).ok_or(NvidiaRefusal::NotReady);
                checks.require(Dimension::Configuration, READY, ready);
            }
            None if policy.is_some_and(|policy| policy.require_state) => {
                checks.require(Dimension::Configuration, CC, Err(NvidiaRefusal::StateUnknown));
            }
            None => checks.skip(Dimension::Configuration, CC),
        }
    }

    fn check_policy(&self, policy: &NvidiaPolicy, checks: &mut Checks<NvidiaRefusal>) {
        let arch = self.arch();
        let listed = policy.architectures.contains(&arch);
        checks.require(
            Dimension::Hardware,
            "architecture is allowed",
            listed.then_some(()).ok_or(NvidiaRefusal::ArchitectureNotAllowed(arch)),
        );
        checks.require(
            Dimension::InstanceIdentity,
            "device is in the inventory",
            self.check_inventory(policy),
        );
        checks.require(
            Dimension::Executables,
            "VBIOS is allowed",
            check_vbios(policy, arch, self.vbios()),
        );
        if let Some(driver) = self.driver() {
            checks.require(
                Dimension::Executables,
                "driver is allowed",
                check_driver(policy, arch, driver),
            );
        }
        if arch.is_gpu() {
            let feature = self.feature();
            let allowed = policy.features.contains(&feature);
            checks.require(
                Dimension::Configuration,
                "GPU is set up for something that is allowed",
                allowed.then_some(()).ok_or(NvidiaRefusal::Feature(feature)),
            );
        }
    }

    fn check_inventory(&self, policy: &NvidiaPolicy) -> Result<(), NvidiaRefusal> {
        let inventory = &policy.inventory;
        let serial = self.serial();
        let digests = self.chain.digests();
        let denied = digests
            .iter()
            .any(|digest| inventory.denied_certificates.contains(digest));
        if denied || inventory.denied_serials.contains(serial) {
            return Err(NvidiaRefusal::Denied(serial.clone()));
        }
        let any = inventory.allowed_serials.is_empty() && inventory.allowed_certificates.is_empty();
        let allowed = inventory.allowed_serials.contains(serial)
            || inventory.allowed_certificates.contains(&self.certificate_digest());
        if any || allowed {
            Ok(())
        } else {
            Err(NvidiaRefusal::NotInInventory(serial.clone()))
        }
    }

    /// Nonce of the request that the report answers.
    #[must_use]
    pub const fn nonce(&self) -> &[u8; NONCE_LEN] {
        &self.report.nonce
    }

    /// Architecture.
    #[must_use]
    pub const fn arch(&self) -> DeviceArch {
        self.chain.arch
    }

    /// Identity of the device: the serial number of its boot ROM's certificate.
    #[must_use]
    pub const fn serial(&self) -> &DeviceSerial {
        &self.chain.serial
    }

    /// SHA-256 of the boot ROM's certificate.
    #[must_use]
    pub fn certificate_digest(&self) -> Sha256Digest {
        let [_, device, ..] = self.chain.digests();
        device
    }

    /// What the device is, in NVIDIA's words: `GH100 A01 GSP BROM`.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.chain.model
    }

    /// Family of the chip, as in the names of reference documents: `GH100`.
    #[must_use]
    pub fn chip(&self) -> &str {
        self.chain.model.split(' ').next().unwrap_or_default()
    }

    /// What is measured.
    #[must_use]
    pub const fn measurements(&self) -> &Measurements {
        &self.report.measurements
    }

    /// What the device says of itself.
    #[must_use]
    pub const fn opaque(&self) -> &Opaque {
        &self.report.opaque
    }

    /// Version of the driver; a switch has none.
    #[must_use]
    pub const fn driver(&self) -> Option<&DriverVersion> {
        self.report.opaque.driver.as_ref()
    }

    /// Version of the VBIOS, or of the switch's BIOS.
    #[must_use]
    pub const fn vbios(&self) -> VbiosVersion {
        self.report.opaque.vbios
    }

    /// What the GPU is set up for: SPT, the only mode of the drivers that do not say it.
    #[must_use]
    pub fn feature(&self) -> FeatureMode {
        self.report.opaque.feature.unwrap_or(FeatureMode::Spt)
    }

    /// Last second in which all of the chain is valid.
    #[must_use]
    pub const fn valid_until(&self) -> UnixTime {
        self.chain.valid_until()
    }

    /// The chain, to be kept for the next report of the device.
    #[must_use]
    pub const fn chain(&self) -> &VerifiedChain {
        &self.chain
    }

    /// Identity on the links, out of the certificate.
    pub(super) fn pdi(&self) -> Option<Pdi> {
        let (prefix, rest) = self.serial().as_bytes().split_first()?;
        let expected = if self.arch().is_gpu() {
            GPU_PREFIX
        } else {
            SWITCH_PREFIX
        };
        let pdi: [u8; PDI_LEN] = rest.try_into().ok()?;
        (*prefix == expected).then_some(Pdi(pdi))
    }
}

/// No switch says what board it is: there is one.
fn switch_board() -> Board {
    let [project, project_sku, chip_sku] = ["5612", "0002", "890"].map(str::to_owned);
    Board {
        project,
        project_sku,
        chip_sku,
    }
}

fn check_driver(policy: &NvidiaPolicy, arch: DeviceArch, found: &DriverVersion) -> Result<(), NvidiaRefusal> {
    let least = policy.min_driver.get(&arch).ok_or(NvidiaRefusal::NoDriverFloor(arch))?;
    if found < least {
        return Err(NvidiaRefusal::DriverBelowFloor {
            found: found.clone(),
            least: least.clone(),
        });
    }
    let allowed = policy
        .allowed_drivers
        .as_ref()
        .is_none_or(|allowed| allowed.contains(found));
    if policy.denied_drivers.contains(found) || !allowed {
        return Err(NvidiaRefusal::Driver(found.clone()));
    }
    Ok(())
}

fn check_vbios(policy: &NvidiaPolicy, arch: DeviceArch, found: VbiosVersion) -> Result<(), NvidiaRefusal> {
    let least = *policy.min_vbios.get(&arch).ok_or(NvidiaRefusal::NoVbiosFloor(arch))?;
    if found < least {
        return Err(NvidiaRefusal::VbiosBelowFloor { found, least });
    }
    let allowed = policy
        .allowed_vbios
        .as_ref()
        .is_none_or(|allowed| allowed.contains(&found));
    if policy.denied_vbios.contains(&found) || !allowed {
        return Err(NvidiaRefusal::Vbios(found));
    }
    Ok(())
}
