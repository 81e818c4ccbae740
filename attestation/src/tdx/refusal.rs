//! Why evidence of Intel TDX is refused.

use std::fmt;

use super::policy::{BitSet, Fmspc, Ppid, TcbStatus, TeeTcbSvn};
use crate::ids::UnixTime;
use crate::policy::Measurement;

/// A bit of the guest's attributes that gives it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UntrustedBit {
    /// `DEBUG`.
    Debug,
    /// `HGS_PLUS_PROF`, `PERF_PROF` or `PMT_PROF`.
    Profiling,
    /// `PERFMON`.
    Perfmon,
    /// `MIGRATABLE`.
    Migratable,
    /// `SEPT_VE_DISABLE`, which is missing.
    SeptVeDisable,
    /// One that no specification names.
    Reserved,
}

impl fmt::Display for UntrustedBit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "the guest can be debugged (DEBUG): its host reads all of its memory",
            Self::Profiling => "the guest is profiled: its host sees what it runs",
            Self::Perfmon => "the guest shares performance counters (PERFMON): its host sees what it does",
            Self::Migratable => "the guest can be migrated (MIGRATABLE) to a platform that was not appraised",
            Self::SeptVeDisable => {
                "the host can inject faults (SEPT_VE_DISABLE is 0): guests on Azure have this, and attest through a vTPM instead"
            }
            Self::Reserved => "a reserved bit of the guest's attributes is set",
        })
    }
}

/// A part of Intel's collateral.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collateral {
    /// Levels of firmware of one family of platforms.
    TcbInfo,
    /// Intel's quoting enclave.
    QeIdentity,
    /// Certificates that Intel's root revoked.
    RootCrl,
    /// Platforms that Intel revoked.
    PckCrl,
}

impl fmt::Display for Collateral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TcbInfo => "TCB info",
            Self::QeIdentity => "QE identity",
            Self::RootCrl => "revocation list of Intel's root",
            Self::PckCrl => "revocation list of platforms",
        })
    }
}

/// A value of the guest's report that a policy lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// `MRTD`.
    MrTd,
    /// `RTMR` 0 to 3.
    Rtmr(u8),
    /// `MRCONFIGID`.
    MrConfigId,
    /// `MROWNER`.
    MrOwner,
    /// `MROWNERCONFIG`.
    MrOwnerConfig,
    /// `MRSERVICETD`.
    MrServiceTd,
    /// `MRSEAM`.
    MrSeam,
    /// `MRSIGNERSEAM`.
    MrSignerSeam,
}

impl Register {
    /// Key of the list in a policy.
    #[must_use]
    pub const fn list(self) -> &'static str {
        match self {
            Self::MrTd => "tdx.mrtd",
            Self::Rtmr(0) => "tdx.rtmr0",
            Self::Rtmr(1) => "tdx.rtmr1",
            Self::Rtmr(2) => "tdx.rtmr2",
            Self::Rtmr(_) => "tdx.rtmr3",
            Self::MrConfigId => "tdx.mrConfigId",
            Self::MrOwner => "tdx.mrOwner",
            Self::MrOwnerConfig => "tdx.mrOwnerConfig",
            Self::MrServiceTd => "tdx.mrServiceTd",
            Self::MrSeam => "tdx.mrSeam",
            Self::MrSignerSeam => "tdx.mrSignerSeam",
        }
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MrTd => f.write_str("MRTD"),
            Self::Rtmr(at) => write!(f, "RTMR{at}"),
            Self::MrConfigId => f.write_str("MRCONFIGID"),
            Self::MrOwner => f.write_str("MROWNER"),
            Self::MrOwnerConfig => f.write_str("MROWNERCONFIG"),
            Self::MrServiceTd => f.write_str("MRSERVICETD"),
            Self::MrSeam => f.write_str("MRSEAM"),
            Self::MrSignerSeam => f.write_str("MRSIGNERSEAM"),
        }
    }
}

/// Why evidence of Intel TDX is refused. The first group is found by [`verify`](super::verify) and needs no policy, the second
/// by [`VerifiedQuote::check`](super::VerifiedQuote::check), the third by a replay of the [event log](super::EventLog).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TdxRefusal {
    /// Longer than a documented limit.
    #[error("{field} is {len} bytes long, and at most {max} are taken")]
    TooLong {
        /// What.
        field: &'static str,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The bytes end before it does.
    #[error("quote is cut short in its {0}")]
    Truncated(&'static str),
    /// Something after the end; zeros after the quote are taken.
    #[error("{0} has bytes after its end")]
    TrailingBytes(&'static str),
    /// Bytes that must be zero are not.
    #[error("reserved bytes of the {0} are set")]
    ReservedBytes(&'static str),
    /// A quote of an SGX enclave.
    #[error("quote is of an SGX enclave, not of a TDX guest")]
    Sgx,
    /// Of no TEE that is known.
    #[error("quote is of TEE type {0:#x}, not of TDX (0x81)")]
    TeeType(u32),
    /// A version that this verifier does not know.
    #[error("quote version {0} is not known: versions 4 and 5 are")]
    Version(u16),
    /// Another kind of attestation key.
    #[error("quote is signed with key type {0}, not with ECDSA P-256 (2)")]
    KeyType(u16),
    /// Another vendor's quoting enclave.
    #[error("quote is not of Intel's quoting enclave: its vendor id is another")]
    Vendor,
    /// A layout of the guest's report that this verifier does not know.
    #[error("quote has body type {0}: 2, 3 and 4 are those of TDX")]
    BodyType(u16),
    /// A length that is not that of the layout.
    #[error("quote's body says that it is {found} bytes long, and its type has {expected}")]
    BodyLength {
        /// Length in the quote.
        found: u32,
        /// Length of the type.
        expected: u32,
    },
    /// Certification data of another type, such as an encrypted PPID.
    #[error("quote holds certification data of type {found} where {expected} belongs: it must carry its certificates")]
    CertificationData {
        /// Type in the quote.
        found: u16,
        /// Type that belongs there.
        expected: u16,
    },
    /// Data of the quoting enclave of another length than 32.
    #[error("quoting enclave added {0} bytes to its key, and 32 belong there")]
    QeAuthData(usize),
    /// Not exactly the certificates that belong there, as PEM.
    #[error("{0} is not exactly its certificates as PEM")]
    Pem(&'static str),
    /// A chain that ends in another certificate than Intel's root, byte for byte.
    #[error("{0} does not end in Intel's root certificate")]
    Root(&'static str),
    /// Collateral that does not parse.
    #[error("collateral does not parse: {0}")]
    CollateralMalformed(String),
    /// Collateral from the future.
    #[error("{what} is not valid before {from}: check this machine's clock")]
    NotYetValid {
        /// What.
        what: Collateral,
        /// When it was issued.
        from: UnixTime,
    },
    /// Collateral that is out of date.
    #[error("{what} has expired at {until}: fetch it again")]
    Expired {
        /// What.
        what: Collateral,
        /// When it ended.
        until: UnixTime,
    },
    /// A certificate that is out of its validity.
    #[error("a certificate of the quote or of its collateral is not valid at this time")]
    CertificateDates,
    /// A certificate that Intel revoked.
    #[error("a certificate of the quote or of its collateral is revoked")]
    CertificateRevoked,
    /// Any other fault of a chain.
    #[error("certificates do not lead to Intel's root: {0}")]
    CertificateChain(String),
    /// The list of revoked platforms is not signed by the certificate that came with it, or that not by Intel's root.
    #[error("revocation list of platforms is not signed by its issuer under Intel's root")]
    PckCrlIssuer,
    /// The platform's certificate has no well-formed extension of Intel's.
    #[error("platform certificate lacks Intel's extension")]
    PckExtension,
    /// Collateral of another family of platforms.
    #[error("TCB info is of FMSPC {found}, and the platform is of {platform}: fetch the TCB info of {platform}")]
    FmspcMismatch {
        /// Of the collateral.
        found: String,
        /// Of the platform's certificate.
        platform: Fmspc,
    },
    /// Collateral of another provisioning enclave.
    #[error("TCB info is of another provisioning certification enclave (pceId) than the platform's certificate")]
    PceIdMismatch,
    /// TCB info of SGX.
    #[error("TCB info is of {0:?}, not of TDX version 3 or later")]
    TcbInfoKind(String),
    /// Intel did not sign this TCB info.
    #[error("TCB info is not signed by Intel")]
    TcbInfoSignature,
    /// Intel did not sign this QE identity.
    #[error("QE identity is not signed by Intel")]
    QeIdentitySignature,
    /// The platform did not sign the quoting enclave's report.
    #[error("quoting enclave's report is not signed by the key of the platform certificate")]
    QeReportSignature,
    /// The quoting enclave did not vouch for the attestation key.
    #[error("quoting enclave's report is of another attestation key than the quote's")]
    QeReportHash,
    /// The quoting enclave is not the one that Intel names.
    #[error("quoting enclave is not Intel's: {0}")]
    QeIdentity(String),
    /// The attestation key did not sign the quote.
    #[error("quote is not signed by its attestation key")]
    QuoteSignature,
    /// The TDX module is not one that Intel names, or too old for any of its levels.
    #[error("TDX module is not one of the TCB info's: {0}")]
    Module(String),
    /// Older than every level of the TCB info.
    #[error("platform's firmware matches no TCB level of Intel's: it is older than all of them")]
    NoTcbLevel,
    /// Intel revoked this level.
    #[error("platform's firmware is Revoked: its keys are known to others")]
    Revoked,
    /// Anything else that `dcap-qvl` refuses.
    #[error("quote does not verify: {0}")]
    Unverified(String),

    /// A bit of the attributes. Those that no policy can allow are found by [`verify`](super::verify).
    #[error("{0}")]
    Attribute(UntrustedBit),
    /// Bits of `XFAM` that every guest has are missing, or there are unknown ones.
    #[error("XFAM {0} lacks x87 or SSE, or has reserved bits")]
    XfamReserved(BitSet),
    /// Guests that serve this one.
    #[error("other guests serve this one ({register} {found}), and are not among the policy's {}", .register.list())]
    ServiceTd {
        /// Always [`Register::MrServiceTd`].
        register: Register,
        /// The digest.
        found: Measurement,
    },
    /// A register whose value is not listed.
    #[error("{register} {found} is not among the policy's {}", .register.list())]
    NotListed {
        /// Which.
        register: Register,
        /// Its value.
        found: Measurement,
    },
    /// `XFAM` is not listed.
    #[error("XFAM {0} matches none of the policy's tdx.xfam")]
    Xfam(BitSet),
    /// Attributes are not listed.
    #[error("guest's attributes {0} match none of the policy's tdx.tdAttributes")]
    TdAttributes(BitSet),
    /// A rating that is not allowed.
    #[error("Intel rates the platform's firmware {0}, which is not among the policy's tdx.tcbStatuses")]
    TcbStatus(TcbStatus),
    /// An advisory that is not allowed.
    #[error("platform's firmware is subject to {0}, which is not among the policy's tdx.allowedAdvisories")]
    Advisory(String),
    /// The policy names no least evaluation.
    #[error("the policy names no tdx.minTcbEvaluationDataNumber")]
    NoEvaluationFloor,
    /// Collateral of an older evaluation than the policy's.
    #[error("collateral is of TCB evaluation {found}, and the policy's tdx.minTcbEvaluationDataNumber is {least}")]
    EvaluationRolledBack {
        /// Of the collateral.
        found: u32,
        /// Of the policy.
        least: u32,
    },
    /// The policy names no least TDX module.
    #[error("the policy names no tdx.minTeeTcbSvn")]
    NoModuleFloor,
    /// An older TDX module than the policy's.
    #[error("TDX module's versions {0} are below the policy's tdx.minTeeTcbSvn")]
    ModuleBelowFloor(TeeTcbSvn),
    /// Collateral that Intel issued too long ago.
    #[error(
        "{what} was issued {age} seconds ago, and the policy's tdx.maxCollateralAgeSeconds is {most}: fetch it again"
    )]
    CollateralTooOld {
        /// What.
        what: Collateral,
        /// Its age in seconds.
        age: u64,
        /// Of the policy.
        most: u64,
    },
    /// A family of platforms that is not allowed.
    #[error("platform's FMSPC {0} is not among the policy's tdx.allowedFmspcs, or is among its tdx.deniedFmspcs")]
    Fmspc(Fmspc),
    /// A platform that is not allowed.
    #[error("platform's PPID {0} is not among the policy's tdx.allowedPpids, or is among its tdx.deniedPpids")]
    Ppid(Ppid),
    /// Processors can be added to the platform.
    #[error("processors can be added to the platform, and the policy's tdx.allowDynamicPlatform is not set")]
    DynamicPlatform,
    /// Intel keeps the platform's root keys.
    #[error(
        "Intel's registration service keeps the platform's root keys, and the policy's tdx.allowCachedKeys is not set"
    )]
    CachedKeys,
    /// Two threads share a core.
    #[error("two threads share a core of the platform (SMT), and the policy's tdx.allowSmt is not set")]
    Smt,

    /// An event log that does not parse.
    #[error("event log does not parse: {0}")]
    EventLog(&'static str),
    /// An event whose digest is not that of what it says.
    #[error("event {0} of the log has another digest than what it says")]
    EventDigest(usize),
    /// A log that does not lead to the quote's measurement.
    #[error(
        "event log leads to RTMR{at} {replayed}, and the quote has {found}: events were left out, added or changed"
    )]
    Replay {
        /// Which runtime measurement.
        at: u8,
        /// From the log.
        replayed: Measurement,
        /// From the quote.
        found: Measurement,
    },
}

/// Makes a refusal of the words.
type Meaning = fn(&str) -> TdxRefusal;

/// What `dcap-qvl` 0.7.1 says, and what that is here. The first that occurs counts.
const WORDS: [(&str, Meaning); 20] = [
    ("TCB status is invalid: Revoked", |_| TdxRefusal::Revoked),
    ("No matching TCB level", |_| TdxRefusal::NoTcbLevel),
    ("invalid for tcb_info", |_| TdxRefusal::TcbInfoSignature),
    ("invalid for qe_identity", |_| TdxRefusal::QeIdentitySignature),
    ("invalid for qe_report", |_| TdxRefusal::QeReportSignature),
    ("QE report hash mismatch", |_| TdxRefusal::QeReportHash),
    ("ISV enclave report signature", |_| TdxRefusal::QuoteSignature),
    ("CertRevoked", |_| TdxRefusal::CertificateRevoked),
    ("CertExpired", |_| TdxRefusal::CertificateDates),
    ("CertNotValidYet", |_| TdxRefusal::CertificateDates),
    ("TDX module", |words| TdxRefusal::Module(words.to_owned())),
    ("QE MRSIGNER", |words| TdxRefusal::QeIdentity(words.to_owned())),
    ("QE ISVPRODID", |words| TdxRefusal::QeIdentity(words.to_owned())),
    ("QE MISCSELECT", |words| TdxRefusal::QeIdentity(words.to_owned())),
    ("QE ATTRIBUTES", |words| TdxRefusal::QeIdentity(words.to_owned())),
    ("QE ISVSVN", |words| TdxRefusal::QeIdentity(words.to_owned())),
    ("QE Identity id", |words| TdxRefusal::QeIdentity(words.to_owned())),
    ("QE report validation", |words| TdxRefusal::QeIdentity(words.to_owned())),
    ("certificate", |words| TdxRefusal::CertificateChain(words.to_owned())),
    ("CRL", |words| TdxRefusal::CertificateChain(words.to_owned())),
];

impl TdxRefusal {
    /// From what `dcap-qvl` says.
    pub(crate) fn from_words(words: &str) -> Self {
        WORDS
            .iter()
            .find(|(part, _)| words.contains(part))
            .map_or_else(|| Self::Unverified(words.to_owned()), |(_, refusal)| refusal(words))
    }
}
