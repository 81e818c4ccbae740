//! Why a reference integrity manifest is refused.

use super::id::{RimId, RimKind};
use super::xml::XmlRefusal;
use crate::x509::CertificateRefusal;

/// Why a reference integrity manifest is refused. The first group is found by [`verify`](super::verify), the rest when it is
/// asked for, and compared with a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RimRefusal {
    /// Text outside of the subset.
    #[error("reference manifest {0}")]
    Xml(#[from] XmlRefusal),
    /// Not a software identity of ISO/IEC 19770-2.
    #[error("reference manifest is no SoftwareIdentity of ISO/IEC 19770-2")]
    NotAnIdentity,
    /// No signature, more than one, one that is not directly in the document's element, or pieces of one elsewhere.
    #[error("reference manifest does not have exactly one signature, directly in its SoftwareIdentity")]
    SignaturePlace,
    /// A signature of another shape; which part.
    #[error("reference manifest's signature is not of the one shape that NVIDIA uses: {0}")]
    SignatureShape(&'static str),
    /// Another algorithm; which part.
    #[error("reference manifest's signature uses another algorithm than NVIDIA's: {0}")]
    Algorithm(&'static str),
    /// Content that was changed after it was signed.
    #[error("reference manifest was changed after it was signed: fetch it again")]
    Digest,
    /// A signature that is not the signer's.
    #[error("reference manifest is not signed by its certificate")]
    Signature,
    /// A certificate of the chain.
    #[error("reference manifest's certificate {position} of 4 {reason}")]
    Certificate {
        /// From the signer (1) to the root (4).
        position: u8,
        /// What is wrong with it.
        reason: CertificateRefusal,
    },
    /// A chain that does not end in the pinned root.
    #[error("reference manifest's certificates do not end in NVIDIA's root for reference values")]
    Root,
    /// Signed and genuine, but not as a manifest should be; which part.
    #[error("reference manifest is signed, but malformed: {0}")]
    Malformed(&'static str),
    /// A measurement that is malformed.
    #[error("reference manifest is signed, but measurement {index} is malformed: {what}")]
    Measurement {
        /// Its index.
        index: u8,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Two measurements of one index.
    #[error("reference manifest has measurement {0} twice")]
    RepeatedIndex(u8),
    /// Nothing to compare with.
    #[error("reference manifest has no active measurement: nothing would be compared")]
    NoActive,

    /// No manifest of this name.
    #[error("no reference manifest {0} in the store: fetch it with `cloister collateral fetch`")]
    Missing(Box<RimId>),
    /// A manifest of another component.
    #[error("reference manifest is of a {found}, not of a {expected}")]
    Kind {
        /// What it is about.
        found: RimKind,
        /// What was asked for.
        expected: RimKind,
    },
    /// A manifest of another chip.
    #[error("reference manifest is of {found}, not of {expected}")]
    Chip {
        /// Its chip.
        found: String,
        /// The device's.
        expected: String,
    },
    /// A manifest of another version.
    #[error("reference manifest is of version {found}, and the device runs {expected}")]
    Version {
        /// Its version.
        found: String,
        /// The device's.
        expected: String,
    },
    /// Two manifests that claim the same measurement.
    #[error("measurement {0} is active in both reference manifests: they do not belong together")]
    ActiveInBoth(u8),
}
