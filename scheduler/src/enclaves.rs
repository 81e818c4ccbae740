//! The enclaves of the configuration, and how to talk to each.

use std::sync::Arc;

use bytes::Bytes;
use cloister_attestation::evidence::MAX_EVIDENCE_LEN;
use cloister_proto::{
    KeyConfigsRequest, enclave_control_client::EnclaveControlClient, enclave_keys_client::EnclaveKeysClient,
};
use cloister_scheduler_core::ReplicaIndex;
use cloister_session::TenantRef;
use cloister_transport::{ClientError, ClientLimits, ClientTls, Http2Client};
use http::Uri;

/// Longest gRPC message of an enclave: evidence is the largest.
pub(crate) const MAX_MESSAGE: usize = MAX_EVIDENCE_LEN + 64 * 1024;

/// One enclave.
#[derive(Clone, Debug)]
pub(crate) struct Enclave {
    pub(crate) index: ReplicaIndex,
    /// Requests.
    pub(crate) data: Http2Client,
    /// Control and keys: a connection of their own, so that requests cannot use up its streams and windows.
    control: Http2Client,
    origin: Uri,
}

/// All of them, by [`ReplicaIndex`].
#[derive(Clone, Debug)]
pub(crate) struct Enclaves(Arc<[Enclave]>);

// === impl Enclave ===

impl Enclave {
    fn new(index: usize, address: &Uri, tls: &ClientTls, limits: &ClientLimits) -> Result<Self, ClientError> {
        Ok(Self {
            index: ReplicaIndex(index),
            data: Http2Client::new(address, tls, limits.clone())?,
            control: Http2Client::new(address, tls, limits.clone())?,
            origin: address.clone(),
        })
    }

    /// `host:port`, for the log.
    pub(crate) fn authority(&self) -> &str {
        self.control.authority()
    }

    pub(crate) fn control(&self) -> EnclaveControlClient<Http2Client> {
        EnclaveControlClient::with_origin(self.control.clone(), self.origin.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn keys(&self) -> EnclaveKeysClient<Http2Client> {
        EnclaveKeysClient::with_origin(self.control.clone(), self.origin.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Signed key configurations for a tenant, as they come.
    pub(crate) async fn key_configs(&self, tenant: TenantRef) -> Result<Vec<Bytes>, tonic::Status> {
        let request = KeyConfigsRequest {
            tenant_ref: Bytes::copy_from_slice(tenant.as_bytes()),
        };
        let reply = self.keys().key_configs(request).await?;
        Ok(reply.into_inner().key_configs)
    }
}

// === impl Enclaves ===

impl Enclaves {
    pub(crate) fn new(addresses: &[Uri], tls: &ClientTls, limits: &ClientLimits) -> Result<Self, ClientError> {
        let enclaves = addresses.iter().enumerate();
        enclaves
            .map(|(index, address)| Enclave::new(index, address, tls, limits))
            .collect::<Result<Vec<_>, _>>()
            .map(|enclaves| Self(enclaves.into()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Enclave> {
        self.0.iter()
    }

    pub(crate) fn get(&self, index: ReplicaIndex) -> Option<&Enclave> {
        self.0.get(index.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
