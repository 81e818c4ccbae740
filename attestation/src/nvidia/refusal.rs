//! Why evidence of an NVIDIA device is refused.

use std::collections::BTreeSet;
use std::fmt;

use super::ocsp::{OcspRefusal, Revocation};
use super::policy::{DeviceArch, DeviceSerial, DriverVersion, FeatureMode, VbiosVersion};
use super::rim::RimRefusal;
use crate::ids::Sha256Digest;
use crate::x509::{CertificateRefusal, PemRefusal};

/// A certificate of a device's chain, by its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// NVIDIA's root of all devices.
    Root,
    /// NVIDIA's key for one family of devices.
    Family,
    /// NVIDIA's key at the place where devices are made.
    Provisioner,
    /// The key in a device's boot ROM.
    Device,
    /// The key of a device's firmware, which signs reports.
    Leaf,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root certificate",
            Self::Family => "family's certificate",
            Self::Provisioner => "provisioner's certificate",
            Self::Device => "device's certificate",
            Self::Leaf => "report key's certificate",
        })
    }
}

/// What is wrong with the form of a report (DSP0274 1.1, sections 10.11.1 and 10.11.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReportRefusal {
    /// Longer than [`MAX_EVIDENCE_LEN`](super::spdm::MAX_EVIDENCE_LEN).
    #[error("is {0} bytes long, more than any device's")]
    TooLong(usize),
    /// Begins like text, and is not hex.
    #[error("is neither a message nor its hex text")]
    NotHex,
    /// Ends too early.
    #[error("ends within its {0}")]
    Truncated(&'static str),
    /// Not the request that is answered.
    #[error("does not begin with an SPDM 1.1 request for all measurements with a signature")]
    Request,
    /// Not the answer.
    #[error("holds no SPDM 1.1 response with measurements")]
    Response,
    /// The number of blocks is not the one that it says.
    #[error("says {said} measurement blocks, and holds {found}")]
    BlockCount {
        /// Number in the header.
        said: u8,
        /// Number in the record.
        found: usize,
    },
    /// A block is not a DMTF measurement that is a SHA-384.
    #[error("has a measurement block {0} that is not a SHA-384 of DMTF's form")]
    Block(u8),
    /// Indexes begin at 1.
    #[error("has a measurement block of index 0")]
    BlockZero,
    /// Two blocks have one index.
    #[error("has measurement block {0} twice")]
    DuplicateBlock(u8),
    /// A field of the opaque data occurs twice.
    #[error("has opaque field {0} twice")]
    DuplicateField(u16),
    /// A field of the opaque data has a wrong length.
    #[error("has an opaque field {kind} of {found} bytes")]
    FieldLength {
        /// Its type.
        kind: u16,
        /// Its length.
        found: usize,
    },
    /// A field of the opaque data has a value that has no meaning.
    #[error("has an opaque field {0} without a known meaning")]
    FieldValue(u16),
    /// A field that each report of this kind has is missing.
    #[error("lacks opaque field {0}")]
    MissingField(u16),
    /// The fields for protected PCIe say two things.
    #[error("says that protected PCIe is on and that it is off")]
    FeatureConflict,
    /// Bytes after the signature, other than one zero byte.
    #[error("goes on for {0} bytes after its signature")]
    Trailing(usize),
}

/// What confidential computing of a GPU is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CcMode {
    /// Off: memory is open.
    Off,
    /// On.
    On,
    /// On for developers: memory is open to debuggers.
    DevTools,
}

/// Why evidence of an NVIDIA device is refused. The first group is found by [`verify`](super::verify) and needs no policy; the
/// second by [`VerifiedDevice::check`](super::VerifiedDevice::check); the third by [`fleet::check`](super::fleet::check).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NvidiaRefusal {
    /// The report does not have its form.
    #[error("report {0}")]
    Report(#[from] ReportRefusal),
    /// The chain is not PEM.
    #[error("certificate chain {0}")]
    Pem(#[from] PemRefusal),
    /// The chain does not have five certificates.
    #[error("certificate chain has {0} certificates, and that of a device has 5")]
    ChainLength(usize),
    /// The chain ends in another root.
    #[error("certificate chain ends in {0}, which is not NVIDIA's root of devices")]
    OtherRoot(Sha256Digest),
    /// A certificate of the chain is refused.
    #[error("{role} {reason}")]
    Certificate {
        /// Which one.
        role: Role,
        /// Why.
        reason: CertificateRefusal,
    },
    /// The certificates are of another kind of device than the evidence claims.
    #[error("{role} is of {found}, and the evidence claims to be of {claimed}")]
    Architecture {
        /// Which certificate.
        role: Role,
        /// What it is of: its common name.
        found: String,
        /// What the evidence claims.
        claimed: DeviceArch,
    },
    /// The firmware's key was made by other firmware than the report names.
    #[error("the firmware that the report names (FWID) is not the one that its key was made for")]
    FwidMismatch,
    /// The report names firmware, and the certificate does not.
    #[error("report key's certificate does not say for which firmware (FWID) the key was made")]
    FwidMissingInCertificate,
    /// The key of the chain did not sign the report.
    #[error("report is not signed by the key of its certificate chain")]
    Signature,

    /// Another nonce.
    #[error("report answers another nonce: it is stale, replayed or of another appraisal")]
    Nonce,
    /// The policy does not list the architecture.
    #[error("{0} is not among the policy's nvidia.architectures")]
    ArchitectureNotAllowed(DeviceArch),
    /// The policy does not list what the GPU is set up for.
    #[error("the GPU is set up for {0}, which is not among the policy's nvidia.features")]
    Feature(FeatureMode),
    /// Confidential computing is off, or open to debuggers.
    #[error("confidential computing of the GPU is {}", match .0 { CcMode::DevTools => "in DevTools mode, in which its memory is open", _ => "off" })]
    CcMode(CcMode),
    /// The GPU does not take work yet.
    #[error("the GPU is not in its ready state")]
    NotReady,
    /// Nobody read the GPU's state, and the policy asks for it.
    #[error(
        "nothing says that the GPU is ready with confidential computing on, and the policy's nvidia.requireState is set"
    )]
    StateUnknown,
    /// The policy has no floor for the driver.
    #[error("the policy's nvidia.minDriver has no {0}")]
    NoDriverFloor(DeviceArch),
    /// The driver is too old.
    #[error("driver {found} is older than {least}, the policy's nvidia.minDriver")]
    DriverBelowFloor {
        /// Version of the report.
        found: DriverVersion,
        /// Least one.
        least: DriverVersion,
    },
    /// The driver is denied, or not among the allowed.
    #[error("driver {0} is refused by the policy's nvidia.deniedDrivers or allowedDrivers")]
    Driver(DriverVersion),
    /// The policy has no floor for the VBIOS.
    #[error("the policy's nvidia.minVbios has no {0}")]
    NoVbiosFloor(DeviceArch),
    /// The VBIOS is too old.
    #[error("VBIOS {found} is older than {least}, the policy's nvidia.minVbios")]
    VbiosBelowFloor {
        /// Version of the report.
        found: VbiosVersion,
        /// Least one.
        least: VbiosVersion,
    },
    /// The VBIOS is denied, or not among the allowed.
    #[error("VBIOS {0} is refused by the policy's nvidia.deniedVbios or allowedVbios")]
    Vbios(VbiosVersion),
    /// The report does not say which firmware made its key.
    #[error(
        "report does not name the firmware of its key (FWID), and the policy's nvidia.requireFwid is set: the driver is too old"
    )]
    FwidMissing,
    /// The device is not one of those that the policy lists.
    #[error("device {0} is not in the policy's nvidia.inventory")]
    NotInInventory(DeviceSerial),
    /// The device or a certificate above it is denied.
    #[error("device {0} is denied by the policy's nvidia.inventory")]
    Denied(DeviceSerial),
    /// A certificate of the chain is revoked, on hold, or may be.
    #[error("{role} {status}")]
    Revocation {
        /// Which certificate.
        role: Role,
        /// What is known of it.
        status: Revocation,
    },
    /// An OCSP response is not one.
    #[error("OCSP response {0}")]
    Ocsp(#[from] OcspRefusal),
    /// A signed reference is refused.
    #[error(transparent)]
    Rim(#[from] RimRefusal),
    /// The device measured something else than its signed references say.
    #[error("measurements {0:?} are none of those that the signed references (RIM) allow: other firmware runs")]
    Measurements(BTreeSet<u8>),
    /// No signed reference vouches for the device's measurements.
    #[error(
        "no signed reference (RIM) was compared with the device's measurements, and the policy's nvidia.requireRims is set"
    )]
    RimMissing,

    /// Two reports are of one device.
    #[error("device {0} is there twice")]
    DuplicateDevice(DeviceSerial),
    /// Not as many devices as the policy wants.
    #[error(
        "there are {found_gpus} GPUs and {found_switches} switches, and the policy's nvidia.devices wants {gpus} and {switches}"
    )]
    DeviceCount {
        /// GPUs in the evidence.
        found_gpus: usize,
        /// Switches in the evidence.
        found_switches: usize,
        /// GPUs that the policy wants.
        gpus: u8,
        /// Switches that the policy wants.
        switches: u8,
    },
    /// GPUs are set up for different things.
    #[error("one GPU is set up for {0} and another for {1}")]
    FeatureMix(FeatureMode, FeatureMode),
    /// Protected PCIe without all of the board's devices.
    #[error("protected PCIe needs 8 GPUs and 4 switches, and there are {gpus} and {switches}")]
    PpcieCount {
        /// GPUs.
        gpus: usize,
        /// Switches.
        switches: usize,
    },
    /// A device is linked to others than the ones that are there.
    #[error("device {0} is not linked to exactly the other devices of this evidence")]
    Topology(DeviceSerial),
}

impl NvidiaRefusal {
    /// Says whose certificate it is.
    pub(super) fn certificate(role: Role) -> impl Fn(CertificateRefusal) -> Self {
        move |reason| Self::Certificate { role, reason }
    }
}
