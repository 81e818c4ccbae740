//! Sans-IO sealed-session protocol: what a client seals, only an enclave of its choice can open.
//!
//! The wire formats are in `WIRE.md` beside this crate, an example of each in `golden/`. Nothing here does IO, and time is
//! always an argument. Three roles use it: the client ([`client`], [`opener`]), the enclave ([`window`], [`enclave`],
//! [`replay`], [`response`]), and whatever stands between and can read only [`outer`].
//!
//! # Flow
//!
//! The client verifies a [`SignedKeyConfig`](key_config::SignedKeyConfig) against an attested peer, seals with
//! [`client::seal`] and gets the [`ResponseOpener`](opener::ResponseOpener) of that one request. The enclave goes
//! [`find`](window::WindowKeys::find), [`open`](window::WindowKeys::open), [`AwaitingAuth`](enclave::AwaitingAuth),
//! [`Claimed`](enclave::Claimed), [`AwaitingBody`](enclave::AwaitingBody), [`OpenedRequest`](enclave::OpenedRequest),
//! [`admit`](window::WindowKeys::admit), [`ResponseSealer`](response::ResponseSealer): each step consumes the one before,
//! and only `admit` could be forgotten: call it before the engine sees the request.
//!
//! # Guarantees
//!
//! - What is refused is refused for good: after an error no further byte of that message opens.
//! - An answer counts only when [`finish`](opener::ResponseOpener::finish) returns it; a cut one is an error.
//! - Plaintext and keys are erased when dropped; no type that holds them can be printed, and no error carries content.
//! - Memory is bounded by [`limits`] for every length that a peer chooses.

pub mod client;
pub mod credential;
pub mod enclave;
pub mod ids;
pub mod inner;
pub mod key_config;
pub mod limits;
pub mod opener;
pub mod outer;
pub mod policy;
pub mod receipt;
pub mod record;
pub mod replay;
pub mod response;
pub mod signing;
pub mod window;

mod chunk;
mod suite;
mod transcript;
mod varint;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod refusals;

pub use ids::{HeaderHash, KeyId, RequestId, TenantId, TenantRef, tenant_ref};

/// Media type of M1, the sealed request.
pub const REQUEST_MEDIA_TYPE: &str = "application/vnd.cloister.request.v1";
/// Media type of M2, the sealed response.
pub const RESPONSE_MEDIA_TYPE: &str = "application/vnd.cloister.response.v1";

/// Bytes that are no message of this protocol. Says nothing of what is wrong with them: they may hold content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);
