//! Why a report of SEV-SNP is refused.

use std::fmt;

use super::crl::CrlRefusal;
use crate::ids::Sha256Digest;
use crate::policy::{Generation, KeyDigest, Measurement, PlatformId, TcbVersion};
use crate::x509::CertificateRefusal;

/// A certificate of the chain, by its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// AMD's root key, or the SIMULATED one.
    Ark,
    /// The key between the root and chips.
    Ask,
    /// The key between the root and cloud providers.
    Asvk,
    /// The key of one chip at one firmware version.
    Vcek,
    /// The key of a cloud provider at one firmware version.
    Vlek,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ark => "root certificate (ARK)",
            Self::Ask => "intermediate certificate (ASK)",
            Self::Asvk => "intermediate certificate (ASVK)",
            Self::Vcek => "chip certificate (VCEK)",
            Self::Vlek => "provider certificate (VLEK)",
        })
    }
}

/// Which TCB version of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcbKind {
    /// The one that the chip's key was derived from.
    Reported,
    /// The one that runs now.
    Current,
    /// The one that firmware cannot be rolled back below.
    Committed,
    /// The one that ran when the guest was launched.
    Launch,
}

impl fmt::Display for TcbKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reported => "reported",
            Self::Current => "current",
            Self::Committed => "committed",
            Self::Launch => "launch",
        })
    }
}

/// Why a report of SEV-SNP is refused. The first group is found by [`verify`](super::verify) and needs no policy; the second by
/// [`VerifiedReport::check`](super::VerifiedReport::check).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnpRefusal {
    /// Not 1184 bytes.
    #[error("report is {0} bytes long, and one of SEV-SNP has 1184")]
    Length(usize),
    /// A version that this verifier does not know.
    #[error("report version {0} is not known: versions 2 to 5 are")]
    Version(u32),
    /// Reserved bytes that are not zero, or a processor that is none of EPYC.
    #[error("report is malformed: reserved bytes are set or the processor is unknown")]
    Malformed,
    /// Signed with another algorithm than ECDSA P-384 with SHA-384.
    #[error("report is signed with algorithm {0}, not with ECDSA P-384 and SHA-384 (1)")]
    SignatureAlgorithm(u32),
    /// Signed by no key (7), or by one of an unknown kind.
    #[error(
        "report is signed by key kind {0}, neither by a chip's (VCEK, 0) nor by a provider's (VLEK, 1); 7 is unsigned"
    )]
    SigningKey(u32),
    /// The SIMULATED chain has no intermediate for providers' keys.
    #[error("report is signed by a provider's key (VLEK), and its root has no certificate for those (ASVK)")]
    NoProviders,
    /// The chip's key is masked: the report is unsigned.
    #[error("report is unsigned: the platform masks its chip key")]
    MaskedChipKey,
    /// The chip id is masked: a chip's certificate cannot be tied to it, nor can it be compared with a list of chips.
    #[error("report hides its chip id: the platform must not mask it")]
    MaskedChipId,
    /// A certificate of the chain is refused.
    #[error("{role} {reason}")]
    Certificate {
        /// Which one.
        role: Role,
        /// Why.
        #[source]
        reason: CertificateRefusal,
    },
    /// The chip's key did not sign the report.
    #[error("report is not signed by the key of its certificate")]
    Signature,
    /// The certificate is for other firmware than the report says.
    #[error("certificate is for other firmware versions than the report's")]
    TcbMismatch,
    /// The certificate is for another chip than the report says.
    #[error("chip certificate is for another chip than the report's")]
    ChipMismatch,
    /// The report is of another generation than the certificate.
    #[error("report is of another processor generation than its certificate ({0})")]
    GenerationMismatch(Generation),

    /// Older than the policy's `minReportVersion`.
    #[error("report version {found} is below the policy's minReportVersion {least}")]
    OldVersion {
        /// Version of the report.
        found: u32,
        /// Least version of the policy.
        least: u32,
    },
    /// Not among the policy's `allowedGenerations`.
    #[error("processor generation {0} is not among the policy's allowedGenerations")]
    Generation(Generation),
    /// Among the policy's `deniedPlatforms`.
    #[error("processor {0} is among the policy's deniedPlatforms")]
    DeniedPlatform(PlatformId),
    /// Among no inventory of the policy.
    #[error("processor {0} is not among the policy's snp.platforms")]
    UnknownPlatform(PlatformId),
    /// Signed by the key of a provider that the policy does not list.
    #[error("report is signed by the key of provider {0:?}, who is not among the policy's snp.vlekProviders")]
    Provider(String),
    /// A list of revoked certificates that is of no use, or none.
    #[error("list of revoked certificates {0}")]
    Crl(#[source] CrlRefusal),
    /// A certificate of the chain is revoked.
    #[error("{0} is revoked by AMD")]
    Revoked(Role),
    /// Bits of the platform's information that no version of AMD's table has.
    #[error("platform information has reserved bits set")]
    ReservedPlatformBits,
    /// Asked for from a less privileged level of the guest than allowed, or by the host.
    #[error("report is of privilege level {0} of the guest, above the policy's snp.maxVmpl (0 if left out)")]
    Vmpl(u32),
    /// The host may debug the guest.
    #[error("guest policy allows debugging: the host can read its memory")]
    Debug,
    /// The guest may be handed to a migration agent.
    #[error("guest policy allows a migration agent")]
    MigrationAgent,
    /// The bit that is always one is zero, or one that is always zero is one.
    #[error("guest policy has reserved bits of the wrong value")]
    ReservedPolicyBits,
    /// The memory's addresses were not checked for aliases.
    #[error("platform did not report a completed check for aliased memory (BadRAM): update its firmware")]
    AliasCheck,
    /// The policy names no `minTcb` for this generation.
    #[error("policy has no minTcb for {0}")]
    NoTcbFloor(Generation),
    /// Firmware below the policy's floor.
    #[error("{kind} firmware {found:?} is below the policy's minTcb")]
    TcbBelowFloor {
        /// Which of the four versions.
        kind: TcbKind,
        /// That version.
        found: TcbVersion,
    },
    /// Not among the policy's `measurements`.
    #[error("measurement {0} is not among the policy's measurements")]
    Measurement(Measurement),
    /// Not among the policy's `hostData`.
    #[error("host data {0} is not among the policy's hostData")]
    HostData(Sha256Digest),
    /// Not among the policy's `idKeyDigests`.
    #[error("id key digest {0} is not among the policy's idKeyDigests")]
    IdKey(KeyDigest),
    /// Not among the policy's `authorKeyDigests`.
    #[error("author key digest {0} is not among the policy's authorKeyDigests")]
    AuthorKey(KeyDigest),
}

impl SnpRefusal {
    pub(super) const fn certificate(role: Role) -> impl Fn(CertificateRefusal) -> Self {
        move |reason| Self::Certificate { role, reason }
    }
}
