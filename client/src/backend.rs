//! What stands behind the HTTP surface: something that answers a call with authenticated bytes.

use crate::failure::Failure;
use async_trait::async_trait;
use bytes::Bytes;
use cloister_session::inner::InnerRequest;
use futures::stream::BoxStream;
use std::sync::Arc;

/// One call of a client program.
#[derive(Clone)]
pub struct Call {
    /// The model, as the client calls it. It is in the configuration: the surface has checked.
    pub model: String,
    /// Where it was sent, and its body as received. Shared, because each retry seals it again; wiped with the last copy.
    pub inner: Arc<InnerRequest>,
}

/// A piece of an authenticated answer.
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the body.
    Data(Bytes),
    /// The receipt has been verified: the answer is whole. Nothing follows.
    End,
}

/// An answer whose head has been authenticated.
pub struct Answer {
    /// HTTP status that the enclave gives.
    pub status: u16,
    /// Media type that the enclave gives.
    pub content_type: String,
    /// The body. It ends with [`Piece::End`] or an error; ending otherwise is a truncation. Dropping it cancels the call.
    pub pieces: BoxStream<'static, Result<Piece, Failure>>,
}

/// One attempt to have a call answered by an enclave.
#[async_trait]
pub trait Attempt: Send + Sync + 'static {
    /// Seals the call under a new request id, sends it, and waits for the head of the answer.
    ///
    /// Dropping the future or the answer cancels the request upstream.
    ///
    /// # Errors
    ///
    /// See [`crate::failure::Code`]; `retryable` and `may_have_run` say what another attempt can do.
    async fn attempt(&self, call: &Call) -> Result<Answer, Failure>;
}

/// What `/readyz` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The kind of TEE of the attested candidate, such as `snp` or `SIMULATED`.
    pub tee: String,
}

/// What `/readyz` asks.
#[async_trait]
pub trait Ready: Send + Sync + 'static {
    /// Succeeds when a request sent now would find an attested candidate with a live key.
    ///
    /// # Errors
    ///
    /// What is missing.
    async fn ready(&self) -> Result<Readiness, Failure>;
}
