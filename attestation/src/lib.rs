//! RATS core (RFC 9334): evidence to claims to attestation result, with no IO and no clock.
//!
//! Everything that a verifier needs is an argument: the evidence, the nonce, the time, the policy. Nothing here reads a
//! file, opens a socket, or asks what time it is.

pub mod cbor;
pub mod identity;
pub mod ids;

pub use identity::{IdentityKey, signed_bytes};
pub use ids::{BootId, EnclaveId, ModelDigest, PolicyHash, Sha256Digest, UnixTime, WorkloadDigest};
