//! What the relying party needs of the scheduler. Nothing that comes from there is trusted before it is verified.

use crate::failure::Failure;
use async_trait::async_trait;
use bytes::Bytes;
use cloister_attestation::{EnclaveId, ModelDigest};
use cloister_session::TenantRef;
use futures::stream::BoxStream;

/// M2 as it arrives. Dropping it resets the stream upstream.
pub type SealedAnswer = BoxStream<'static, Result<Bytes, Failure>>;

/// The way to the enclaves.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// Key configurations on offer for a tenant and a model, as signed objects.
    ///
    /// # Errors
    ///
    /// The scheduler is unreachable, refuses, or answers outside the protocol.
    async fn key_configs(&self, tenant: &TenantRef, model: &ModelDigest) -> Result<Vec<Vec<u8>>, Failure>;

    /// Evidence of one enclave over a nonce, as JSON.
    ///
    /// # Errors
    ///
    /// As [`Upstream::key_configs`].
    async fn evidence(&self, tenant: &TenantRef, enclave: &EnclaveId, nonce: &[u8; 32]) -> Result<Vec<u8>, Failure>;

    /// Sends M1 and waits until M2 begins.
    ///
    /// # Errors
    ///
    /// As [`Upstream::key_configs`]; also every refusal of the scheduler's closed list.
    async fn send(&self, sealed: Bytes) -> Result<SealedAnswer, Failure>;
}
