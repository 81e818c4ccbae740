//! The control plane: leases, keys and evidence over gRPC.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use cloister_attestation::BootId;
use cloister_enclave_lease::{Epoch, State, Status as Lease};
use cloister_proto as proto;
use cloister_proto::{enclave_control_server::EnclaveControl, enclave_keys_server::EnclaveKeys};
use cloister_session::TenantRef;
use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use crate::{enclave::Enclave, load::LoadLevel, rate::RateLimit, updates::updates};

/// Both services of one enclave.
#[derive(Clone)]
pub struct Control {
    enclave: Arc<Enclave>,
    evidence: Arc<RateLimit>,
}

impl Control {
    /// Serves `enclave`.
    #[must_use]
    pub fn new(enclave: Arc<Enclave>) -> Self {
        Self {
            enclave,
            evidence: Arc::new(RateLimit::default()),
        }
    }

    /// Who asks for keys wants an answer: before the engine was proven for the first time, and when it is given up, there
    /// will be none.
    fn check_ready(&self) -> Result<(), Status> {
        let lease = *self.enclave.leases.subscribe().borrow();
        match lease.state {
            State::Failed => Err(Status::unavailable("the engine was given up: see the enclave's log")),
            State::Scrubbing if lease.epoch.number == 0 => Err(Status::unavailable("the engine is starting")),
            _ => Ok(()),
        }
    }

    fn lease(&self, applied: bool, lease: Lease, load: LoadLevel) -> proto::LeaseStatus {
        let state = match lease.state {
            State::Scrubbing => proto::LeaseState::Scrubbing,
            State::Vacant => proto::LeaseState::Vacant,
            State::Held => proto::LeaseState::Held,
            State::Draining => proto::LeaseState::Draining,
            State::Failed => proto::LeaseState::Failed,
        };
        proto::LeaseStatus {
            state: state.into(),
            epoch: Some(proto::Epoch {
                boot_id: Bytes::copy_from_slice(lease.epoch.boot_id.as_bytes()),
                number: lease.epoch.number,
            }),
            tenant_ref: lease
                .holder
                .map(|holder| Bytes::copy_from_slice(holder.as_bytes()))
                .unwrap_or_default(),
            load: proto::Load::from(load).into(),
            applied,
        }
    }
}

impl From<LoadLevel> for proto::Load {
    fn from(level: LoadLevel) -> Self {
        match level {
            LoadLevel::Idle => Self::Idle,
            LoadLevel::Low => Self::Low,
            LoadLevel::High => Self::High,
            LoadLevel::Full => Self::Full,
        }
    }
}

fn epoch(epoch: Option<proto::Epoch>) -> Result<Epoch, Status> {
    let epoch = epoch.ok_or_else(|| Status::invalid_argument("expect is missing"))?;
    let boot_id = BootId::try_from(epoch.boot_id.as_ref())
        .map_err(|_| Status::invalid_argument("expect.boot_id is not 16 bytes"))?;
    Ok(Epoch {
        boot_id,
        number: epoch.number,
    })
}

fn tenant(bytes: &[u8]) -> Result<TenantRef, Status> {
    TenantRef::try_from(bytes).map_err(|_| Status::invalid_argument("tenant_ref is not 16 bytes"))
}

#[tonic::async_trait]
impl EnclaveControl for Control {
    async fn grant(&self, request: Request<proto::GrantRequest>) -> Result<Response<proto::LeaseStatus>, Status> {
        let request = request.into_inner();
        let (tenant, expect) = (tenant(&request.tenant_ref)?, epoch(request.expect)?);
        let (applied, lease) = self.enclave.leases.grant(tenant, expect);
        Ok(Response::new(self.lease(applied, lease, self.enclave.load())))
    }

    async fn drain(&self, request: Request<proto::DrainRequest>) -> Result<Response<proto::LeaseStatus>, Status> {
        let (applied, lease) = self.enclave.leases.drain(epoch(request.into_inner().expect)?);
        Ok(Response::new(self.lease(applied, lease, self.enclave.load())))
    }

    type StatusStream = Pin<Box<dyn Stream<Item = Result<proto::LeaseStatus, Status>> + Send>>;

    async fn status(&self, _request: Request<proto::StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let (control, seen) = (self.clone(), self.clone());
        let updates = updates(self.enclave.leases.subscribe(), move || {
            seen.enclave.leases.contact();
            seen.enclave.load()
        });
        let stream = updates.map(move |(lease, load)| Ok(control.lease(false, lease, load)));
        Ok(Response::new(Box::pin(stream)))
    }
}

#[tonic::async_trait]
impl EnclaveKeys for Control {
    async fn key_configs(
        &self,
        request: Request<proto::KeyConfigsRequest>,
    ) -> Result<Response<proto::KeyConfigsReply>, Status> {
        let tenant = tenant(&request.into_inner().tenant_ref)?;
        self.check_ready()?;
        let configs = self
            .enclave
            .key_configs(&tenant)
            .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        let key_configs = configs.iter().map(|config| config.to_bytes().into()).collect();
        Ok(Response::new(proto::KeyConfigsReply { key_configs }))
    }

    async fn evidence(
        &self,
        request: Request<proto::EvidenceRequest>,
    ) -> Result<Response<proto::EvidenceReply>, Status> {
        let request = request.into_inner();
        let tenant = tenant(&request.tenant_ref)?;
        let nonce = <[u8; 32]>::try_from(request.nonce.as_ref())
            .map_err(|_| Status::invalid_argument("nonce is not 32 bytes"))?;
        if !self.evidence.take(&tenant, self.enclave.clock.millis()) {
            return Err(Status::resource_exhausted(
                "too many requests for evidence: wait a minute",
            ));
        }
        let enclave = Arc::clone(&self.enclave);
        let evidence = tokio::task::spawn_blocking(move || enclave.evidence(nonce))
            .await
            .map_err(|_| Status::internal("the attester stopped"))?
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(proto::EvidenceReply {
            evidence: evidence.to_json().into_bytes().into(),
        }))
    }
}
