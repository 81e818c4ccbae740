//! Why a report of SEV-SNP is refused.

use std::fmt;

use crate::ids::Sha256Digest;
use crate::policy::{Generation, KeyDigest, Measurement, PlatformId, TcbVersion};
use crate::x509::CertificateRefusal;

/// A certificate of the chain, by its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// AMD's root key, or the SIMULATED one.
    Ark,
    /// The key between.
    Ask,
    /// The key of one chip at one firmware version.
    Vcek,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ark => "root certificate (ARK)",
            Self::Ask => "intermediate certificate (ASK)",
            Self::Vcek => "chip certificate (VCEK)",
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
    /// Signed by no key, or by one that is not the chip's.
    #[error("report is signed by key kind {0}, not by the chip's own (VCEK, 0)")]
    SigningKey(u32),
    /// The chip's key is masked: the report is unsigned.
    #[error("report is unsigned: the platform masks its chip key")]
    MaskedChipKey,
    /// The chip id is masked, so that the certificate cannot be tied to it.
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
    #[error("report is not signed by the key of its chip certificate")]
    Signature,
    /// The certificate is for other firmware than the report says.
    #[error("chip certificate is for other firmware versions than the report's")]
    TcbMismatch,
    /// The certificate is for another chip than the report says.
    #[error("chip certificate is for another chip than the report's")]
    ChipMismatch,
    /// The report is of another generation than the chip's certificate.
    #[error("report is of another processor generation than its chip certificate ({0})")]
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
    /// Asked for from a less privileged level of the guest.
    #[error("report is of privilege level {0}, not of level 0")]
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
