//! RATS core (RFC 9334): evidence to claims to attestation result, with no IO and no clock.
//!
//! Everything that a verifier needs is an argument: the evidence, the nonce, the time, the policy. Nothing here reads a
//! file, opens a socket, or asks what time it is.
//!
//! [`Evidence`] (bytes and claims) -> [`appraise`] under an [`AppraisalPolicy`] -> [`AttestationResult`] (private fields) ->
//! [`AttestedPeer`], which sealing needs. Every other end is a [`Refusal`].

pub mod appraisal;
pub mod binding;
pub mod bundle;
pub mod cbor;
pub mod check;
pub mod corim;
pub mod danger;
pub mod ear;
pub mod evidence;
pub mod identity;
pub mod ids;
pub mod model;
pub mod nvidia;
pub mod policy;
pub mod snp;
pub mod tdx;
pub mod workload;
pub mod x509;

mod canonical_json;
mod endorsements;
mod object;
mod result;
mod rules;
mod tee;

pub use appraisal::{Appraisal, Claims, Refusal, Submodule, appraise, appraise_bundle};
pub use binding::enclave_id;
pub use bundle::{Bundle, BundleError, CpuEvidence, DeviceEvidence};
pub use check::{Check, Checks, Dimension, Finding, Trust, TrustVector};
pub use endorsements::Endorsements;
pub use evidence::{Evidence, EvidenceError};
pub use identity::{IdentityKey, signed_bytes};
pub use ids::{BootId, EnclaveId, ModelDigest, PolicyHash, Sha256Digest, UnixTime, WorkloadDigest};
pub use model::{ManifestError, ModelFile, ModelManifest};
pub use nvidia::DeviceArch;
pub use policy::{AppraisalPolicy, Measurement, PlatformId, PolicyError};
pub use result::{AttestationResult, AttestedPeer, Expired, Tier};
pub use rules::Rules;
pub use tee::{Tee, UnknownTee};
pub use workload::{EngineConfinement, SwitchIsolation, Workload, WorkloadError};
