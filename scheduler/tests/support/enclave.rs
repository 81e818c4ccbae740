//! An enclave that opens nothing: the lease machine, key configurations, and answers as told.

use std::{
    collections::VecDeque,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use cloister_attestation::{BootId, EnclaveId, SwitchIsolation, Tee, WorkloadDigest};
use cloister_proto::{
    DrainRequest, Epoch, EvidenceReply, EvidenceRequest, GrantRequest, KeyConfigsReply, KeyConfigsRequest, LeaseState,
    LeaseStatus, Load, StatusRequest,
    enclave_control_server::{EnclaveControl, EnclaveControlServer},
    enclave_keys_server::{EnclaveKeys, EnclaveKeysServer},
};
use cloister_scheduler::RETRYABLE_HEADER;
use cloister_session::{
    RESPONSE_MEDIA_TYPE, TenantRef,
    key_config::PaddingProfile,
    outer::{OuterRequest, Parsed},
    signing::SigningKey,
    window::{EnclaveFacts, WindowKeys},
};
use cloister_transport::{ClientAuth, ServeLimits, serve, server_config};
use futures::StreamExt;
use http::{StatusCode, header};
use http_body_util::BodyExt;
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore, watch},
};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Status};

use super::{model, now, tls_files};

/// What the enclave does with a request, once it was read.
#[derive(Clone)]
pub enum Behaviour {
    /// Answers with what it received, behind `sealed:`.
    Answer,
    /// The same, when a permit comes.
    Gated(Arc<Semaphore>),
    /// This status and no body.
    Status(u16),
    /// Fails when it has read this many bytes of the body.
    Early(usize),
    /// An outer refusal, before anything of the body is read.
    Refuse { retryable: bool },
    /// Never answers.
    Hang,
    /// 200 with a text.
    Plaintext,
    /// Begins an answer and breaks off when a permit comes: what is under way is lost with the stream.
    Break(Arc<Semaphore>),
    /// Begins an answer and goes silent.
    Stall,
}

pub struct FakeEnclave {
    address: std::net::SocketAddr,
    identity: SigningKey,
    keys: Mutex<WindowKeys>,
    lease: watch::Sender<Lease>,
    script: Mutex<VecDeque<Behaviour>>,
    received: Mutex<Vec<Bytes>>,
    /// Requests that came while another tenant held the lease.
    violations: Mutex<usize>,
    /// Holders in order.
    pub holders: Mutex<Vec<TenantRef>>,
    /// Rings when a request was dropped before it was answered.
    pub cancelled: Notify,
    /// Rings when a request was read.
    pub read: Notify,
    /// Rings when a grant came.
    pub granted: Notify,
    /// While it is there, a grant is answered only when it gives a permit.
    pub hold: Mutex<Option<Arc<Semaphore>>>,
    left: Notify,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Lease {
    boot: [u8; 16],
    number: u64,
    state: LeaseState,
    holder: Option<TenantRef>,
    in_flight: usize,
}

impl FakeEnclave {
    pub async fn start(pki: &Path) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let port = address.port().to_be_bytes();
        let boot = std::array::from_fn(|index| port[index % 2]);
        let lease = Lease {
            boot,
            number: 1,
            state: LeaseState::Vacant,
            holder: None,
            in_flight: 0,
        };
        let fake = Arc::new(Self {
            address,
            identity: SigningKey::generate().unwrap(),
            keys: Mutex::new(window_keys(boot)),
            lease: watch::Sender::new(lease),
            script: Mutex::default(),
            received: Mutex::default(),
            violations: Mutex::default(),
            holders: Mutex::default(),
            cancelled: Notify::new(),
            read: Notify::new(),
            granted: Notify::new(),
            hold: Mutex::default(),
            left: Notify::new(),
        });
        let control = EnclaveControlServer::from_arc(Arc::clone(&fake));
        let keys = EnclaveKeysServer::from_arc(Arc::clone(&fake));
        let grpc = tonic::service::Routes::new(control)
            .add_service(keys)
            .into_axum_router();
        let data = Router::new()
            .route("/cloister/v1/requests", post(request))
            .with_state(Arc::clone(&fake));
        let tls = server_config(&tls_files(pki, "enclave"), ClientAuth::Required).unwrap();
        let leaving = Arc::clone(&fake);
        let limits = ServeLimits {
            drain_deadline: Duration::ZERO,
            ..ServeLimits::default()
        };
        tokio::spawn(async move {
            serve(listener, tls, data.merge(grpc), limits, leaving.left.notified()).await;
        });
        fake
    }

    pub fn uri(&self) -> http::Uri {
        format!("https://{}", self.address).parse().unwrap()
    }

    pub fn enclave_id(&self) -> EnclaveId {
        self.keys.lock().unwrap().facts().enclave_id
    }

    /// What it does with the next requests; after them it answers.
    pub fn script(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.script.lock().unwrap().extend(behaviours);
    }

    /// Bodies of requests that were read, and forgets them.
    pub fn received(&self) -> Vec<Bytes> {
        std::mem::take(&mut self.received.lock().unwrap())
    }

    pub fn violations(&self) -> usize {
        *self.violations.lock().unwrap()
    }

    /// Closes its port and every connection.
    pub fn leave(&self) {
        self.left.notify_one();
    }

    /// A new process: other keys, no lease.
    pub fn reboot(&self) {
        let boot = self.lease.borrow().boot.map(|byte| byte.wrapping_add(1));
        *self.keys.lock().unwrap() = window_keys(boot);
        self.lease.send_replace(Lease {
            boot,
            number: 1,
            state: LeaseState::Vacant,
            holder: None,
            in_flight: 0,
        });
    }

    fn begin(&self, tenant: &TenantRef) {
        let mut holds = false;
        self.lease.send_modify(|lease| {
            holds = lease.holder.as_ref() == Some(tenant);
            lease.in_flight += 1;
        });
        if !holds {
            *self.violations.lock().unwrap() += 1;
        }
    }

    fn end(&self) {
        self.lease.send_modify(|lease| {
            lease.in_flight = lease.in_flight.saturating_sub(1);
            lease.settle();
        });
    }

    fn status_of(lease: &Lease, applied: bool) -> LeaseStatus {
        let holder = lease.holder.map(|holder| Bytes::copy_from_slice(holder.as_bytes()));
        LeaseStatus {
            state: lease.state.into(),
            epoch: Some(Epoch {
                boot_id: Bytes::copy_from_slice(&lease.boot),
                number: lease.number,
            }),
            tenant_ref: holder.unwrap_or_default(),
            load: Load::Low.into(),
            applied,
        }
    }
}

impl Lease {
    fn expects(&self, expect: Option<&Epoch>) -> bool {
        expect.is_some_and(|epoch| *epoch.boot_id == self.boot && epoch.number == self.number)
    }

    /// A drain without requests ends at once, and so does the scrub.
    fn settle(&mut self) {
        if self.state == LeaseState::Draining && self.in_flight == 0 {
            self.number += 1;
            self.state = LeaseState::Vacant;
            self.holder = None;
        }
    }
}

#[tonic::async_trait]
impl EnclaveControl for FakeEnclave {
    async fn grant(&self, request: Request<GrantRequest>) -> Result<tonic::Response<LeaseStatus>, Status> {
        let request = request.into_inner();
        let tenant = TenantRef::try_from(&*request.tenant_ref).map_err(|_| Status::invalid_argument("tenant_ref"))?;
        let mut applied = false;
        self.lease.send_modify(|lease| {
            applied = lease.state == LeaseState::Vacant && lease.expects(request.expect.as_ref());
            if applied {
                lease.state = LeaseState::Held;
                lease.holder = Some(tenant);
            }
        });
        if applied {
            self.holders.lock().unwrap().push(tenant);
        }
        self.granted.notify_one();
        let hold = self.hold.lock().unwrap().clone();
        if let Some(hold) = hold {
            hold.acquire().await.unwrap().forget();
        }
        Ok(tonic::Response::new(Self::status_of(&self.lease.borrow(), applied)))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<tonic::Response<LeaseStatus>, Status> {
        let request = request.into_inner();
        let mut applied = false;
        self.lease.send_modify(|lease| {
            applied = lease.state == LeaseState::Held && lease.expects(request.expect.as_ref());
            if applied {
                lease.state = LeaseState::Draining;
                lease.settle();
            }
        });
        Ok(tonic::Response::new(Self::status_of(&self.lease.borrow(), applied)))
    }

    type StatusStream = Pin<Box<dyn futures::Stream<Item = Result<LeaseStatus, Status>> + Send>>;

    async fn status(&self, _: Request<StatusRequest>) -> Result<tonic::Response<Self::StatusStream>, Status> {
        let leases = WatchStream::new(self.lease.subscribe());
        Ok(tonic::Response::new(Box::pin(
            leases.map(|lease| Ok(Self::status_of(&lease, false))),
        )))
    }
}

#[tonic::async_trait]
impl EnclaveKeys for FakeEnclave {
    async fn key_configs(
        &self,
        request: Request<KeyConfigsRequest>,
    ) -> Result<tonic::Response<KeyConfigsReply>, Status> {
        let tenant = TenantRef::try_from(&*request.into_inner().tenant_ref)
            .map_err(|_| Status::invalid_argument("tenant_ref"))?;
        let configs = self
            .keys
            .lock()
            .unwrap()
            .key_configs(&tenant, &self.identity, now())
            .unwrap();
        let key_configs = configs.iter().map(|config| config.to_bytes().into()).collect();
        Ok(tonic::Response::new(KeyConfigsReply { key_configs }))
    }

    async fn evidence(&self, request: Request<EvidenceRequest>) -> Result<tonic::Response<EvidenceReply>, Status> {
        let request = request.into_inner();
        let nonce: String = request.nonce.iter().map(|byte| format!("{byte:02x}")).collect();
        let evidence = format!(r#"{{"evidence over":"{nonce}"}}"#).into();
        Ok(tonic::Response::new(EvidenceReply { evidence }))
    }
}

/// Holds the request's place in the lease.
struct InFlight {
    fake: Arc<FakeEnclave>,
    answered: bool,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.fake.end();
        if !self.answered {
            self.fake.cancelled.notify_one();
        }
    }
}

async fn request(State(fake): State<Arc<FakeEnclave>>, body: Body) -> Response {
    let behaviour = fake.script.lock().unwrap().pop_front().unwrap_or(Behaviour::Answer);
    if let Behaviour::Refuse { retryable } = behaviour {
        return (StatusCode::FORBIDDEN, [(RETRYABLE_HEADER, retryable.to_string())]).into_response();
    }
    if let Behaviour::Early(wanted) = behaviour {
        let (mut body, mut read) = (body, 0);
        while read < wanted {
            let frame = body.frame().await.unwrap().unwrap();
            read += frame.data_ref().map_or(0, Bytes::len);
        }
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let Ok(body) = body.collect().await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let message = body.to_bytes();
    let Ok(Parsed::Complete { outer, .. }) = OuterRequest::parse(&message) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    fake.begin(&outer.header().tenant_ref);
    let mut in_flight = InFlight {
        fake: Arc::clone(&fake),
        answered: false,
    };
    fake.received.lock().unwrap().push(message.clone());
    fake.read.notify_one();
    let sealed = [(header::CONTENT_TYPE, RESPONSE_MEDIA_TYPE)];
    let piece = |bytes: &'static [u8]| futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(bytes))]);
    let response = match behaviour {
        Behaviour::Answer => (sealed, [b"sealed:", &message[..]].concat()).into_response(),
        Behaviour::Gated(gate) => {
            gate.acquire().await.unwrap().forget();
            (sealed, [b"sealed:", &message[..]].concat()).into_response()
        }
        Behaviour::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Behaviour::Refuse { .. } | Behaviour::Early(_) => unreachable!("answered above"),
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Plaintext => "an answer that everybody can read".into_response(),
        Behaviour::Break(gate) => {
            let broken = futures::stream::once(async move {
                gate.acquire().await.unwrap().forget();
                Err(std::io::Error::other("broken"))
            });
            (sealed, Body::from_stream(piece(b"sealed:").chain(broken))).into_response()
        }
        Behaviour::Stall => (
            sealed,
            Body::from_stream(piece(b"sealed:").chain(futures::stream::pending())),
        )
            .into_response(),
    };
    in_flight.answered = true;
    response
}

fn window_keys(boot: [u8; 16]) -> WindowKeys {
    let facts = EnclaveFacts {
        tee: Tee::Simulated,
        enclave_id: EnclaveId::from_bytes(std::array::from_fn(|index| boot[index % 16])),
        boot_id: BootId::from_bytes(boot),
        model: model(),
        served_model_name: "model".to_owned(),
        workload: WorkloadDigest::from_bytes([0; 32]),
        switch_isolation: SwitchIsolation::Reset,
        padding: PaddingProfile::DEFAULT,
    };
    WindowKeys::new(facts, 0, now()).unwrap()
}
