//! A scheduler and enclaves in one process, over real TLS.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test binaries, each of which uses a part of it"
)]

pub mod enclave;

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::body::Body;
use bytes::Bytes;
use cloister_attestation::{ModelDigest, Sha256Digest, UnixTime};
use cloister_scheduler::{
    CODE_HEADER, RETRYABLE_HEADER, Server,
    config::{Config, CredentialConfig, Limits, TenantConfig, Timeouts},
};
use cloister_scheduler_core::Policy;
use cloister_session::{
    KeyId, REQUEST_MEDIA_TYPE, RequestId, TenantRef,
    key_config::SignedKeyConfig,
    limits::WRAP_LEN,
    outer::{Header, PaddingBucket},
};
use cloister_transport::{
    ClientLimits, Http2Client, ResponseBody, TlsFiles, client_config,
    pki::{self, Existing, Usage},
};
use enclave::FakeEnclave;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

pub const TOKEN: &str = "the outer token";
/// A token for the first tenant only.
pub const NARROW_TOKEN: &str = "a narrow token";
/// Nothing in these tests takes this long, unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn tenant(index: u8) -> TenantRef {
    TenantRef::from_bytes([0xA0 + index; 16])
}

pub fn model() -> ModelDigest {
    ModelDigest::from_bytes([0x3D; 32])
}

pub fn now() -> UnixTime {
    UnixTime(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs())
}

pub struct Fixture {
    pub address: SocketAddr,
    pub client: Http2Client,
    pub enclaves: Vec<Arc<FakeEnclave>>,
    pub pki: TempDir,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

/// A refusal as it arrived.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    pub status: u16,
    pub code: String,
    pub retryable: bool,
}

impl Fixture {
    /// Two tenants, quick leases.
    pub async fn start(enclaves: usize) -> Self {
        Self::start_with(enclaves, |_| {}).await
    }

    pub async fn start_with(enclaves: usize, change: impl FnOnce(&mut Config)) -> Self {
        let pki = tempfile::tempdir().unwrap();
        issue(pki.path());
        let mut fakes = Vec::new();
        for _ in 0..enclaves {
            fakes.push(FakeEnclave::start(pki.path()).await);
        }
        let mut config = config(pki.path(), &fakes);
        change(&mut config);
        let server = Server::bind(config).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let stopped = async {
                let _ended = stopped.await;
            };
            server.serve(stopped).await;
        });
        let fixture = Self {
            address,
            client: client(pki.path(), address),
            enclaves: fakes,
            pki,
            stop: Some(stop),
            serving,
        };
        fixture.reachable(enclaves).await;
        fixture
    }

    /// Waits until the scheduler has heard from so many enclaves.
    pub async fn reachable(&self, enclaves: usize) {
        let expected = format!("\"reachable\":{enclaves}}}");
        let wait = async {
            loop {
                let response = self
                    .client
                    .send(Request::get("/healthz").body(Body::empty()).unwrap())
                    .await;
                let body = response.unwrap().into_body().collect().await.unwrap().to_bytes();
                if String::from_utf8_lossy(&body).ends_with(&expected) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the enclaves are reached");
    }

    /// A connection of its own.
    pub fn another_client(&self) -> Http2Client {
        client(self.pki.path(), self.address)
    }

    /// Tells the scheduler to stop and waits until it has.
    pub async fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(PATIENCE, &mut self.serving)
            .await
            .unwrap()
            .unwrap();
    }

    pub async fn get_keys(&self, tenant: &TenantRef) -> Response<ResponseBody> {
        let uri = format!("/cloister/v1/tenants/{tenant}/keys?model={}", model());
        self.client
            .send(authorized(Request::get(uri)).body(Body::empty()).unwrap())
            .await
            .unwrap()
    }

    /// Keys of a tenant, one per enclave in the order of the enclaves (each has one window, unless a border is near).
    pub async fn keys(&self, tenant: &TenantRef) -> Vec<SignedKeyConfig> {
        let response = self.get_keys(tenant).await;
        assert_eq!(response.status(), StatusCode::OK);
        let body: serde_json::Value = serde_json::from_slice(&response.collect().await.unwrap().to_bytes()).unwrap();
        let configs = body["keyConfigs"].as_array().unwrap();
        configs
            .iter()
            .map(|config| SignedKeyConfig::parse(&decode(config.as_str().unwrap())).unwrap())
            .collect()
    }

    /// Ids of a tenant's keys, one per enclave.
    pub async fn key_ids(&self, tenant: &TenantRef) -> Vec<KeyId> {
        let keys = self.keys(tenant).await;
        let of = |fake: &Arc<FakeEnclave>| {
            let own = keys
                .iter()
                .map(SignedKeyConfig::unverified)
                .find(|config| config.enclave_id == fake.enclave_id());
            own.expect("each enclave has a key").key_id
        };
        self.enclaves.iter().map(of).collect()
    }

    /// A request of a tenant for all enclaves in their order, `size` bytes of chunks.
    pub async fn message(&self, tenant: &TenantRef, size: usize) -> Vec<u8> {
        message(tenant, &self.key_ids(tenant).await, size)
    }

    pub async fn send(&self, message: impl Into<Body>) -> Response<ResponseBody> {
        self.client.send(post(message)).await.unwrap()
    }
}

/// Fails when the response is not a refusal of the agreed form.
pub async fn refused(response: Response<ResponseBody>) -> Refused {
    let (head, body) = response.into_parts();
    let header = |name: http::HeaderName| head.headers[name].to_str().unwrap().to_owned();
    let (code, retryable) = (header(CODE_HEADER), header(RETRYABLE_HEADER) == "true");
    let body: serde_json::Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(body, serde_json::json!({"code": code, "retryable": retryable}));
    Refused {
        status: head.status.as_u16(),
        code,
        retryable,
    }
}

pub fn refusal(status: u16, code: &str, retryable: bool) -> Refused {
    Refused {
        status,
        code: code.to_owned(),
        retryable,
    }
}

pub async fn bytes(response: Response<ResponseBody>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

pub fn post(message: impl Into<Body>) -> Request<Body> {
    let request = authorized(Request::post("/cloister/v1/requests")).header(header::CONTENT_TYPE, REQUEST_MEDIA_TYPE);
    request.body(message.into()).unwrap()
}

pub fn authorized(request: http::request::Builder) -> http::request::Builder {
    request.header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
}

pub fn header_of(tenant: &TenantRef, keys: &[KeyId]) -> Header {
    Header {
        request_id: RequestId::from_bytes([0x1D; 16]),
        created: now(),
        ttl: 120,
        tenant_ref: *tenant,
        model: model(),
        bucket: PaddingBucket::for_length(1).unwrap(),
        dek_commit: [0; 32],
        candidates: keys.to_vec(),
    }
}

pub fn message(tenant: &TenantRef, keys: &[KeyId], size: usize) -> Vec<u8> {
    encode(&header_of(tenant, keys), size)
}

/// M1 whose sealed parts are noise: nobody here can open it anyway.
pub fn encode(header: &Header, size: usize) -> Vec<u8> {
    let bytes = header.to_bytes();
    let mut message = vec![1];
    message.extend_from_slice(&u16::try_from(bytes.len()).unwrap().to_be_bytes());
    message.extend_from_slice(&bytes);
    message.push(u8::try_from(header.candidates.len()).unwrap());
    for key in &header.candidates {
        message.extend_from_slice(key.as_bytes());
        message.extend(std::iter::repeat_n(0x5A, WRAP_LEN - 16));
    }
    message.extend((0..size).map(|index| (index % 251) as u8));
    message
}

fn issue(dir: &Path) {
    let local = ["127.0.0.1", "localhost"];
    pki::create(dir, Existing::Keep).unwrap();
    pki::issue(dir, "scheduler", &local, Usage::ServerAndClient, Existing::Keep).unwrap();
    pki::issue(dir, "enclave", &local, Usage::Server, Existing::Keep).unwrap();
}

pub fn tls_files(dir: &Path, name: &str) -> TlsFiles {
    TlsFiles {
        ca: dir.join("ca.pem"),
        certificate: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
    }
}

fn client(dir: &Path, address: SocketAddr) -> Http2Client {
    let tls = client_config(&dir.join("ca.pem"), None).unwrap();
    let uri = format!("https://{address}").parse().unwrap();
    Http2Client::new(&uri, &tls, ClientLimits::default()).unwrap()
}

fn config(dir: &Path, enclaves: &[Arc<FakeEnclave>]) -> Config {
    let tenants = [tenant(0), tenant(1)];
    let credential = |token: &str, tenants: &[TenantRef]| CredentialConfig {
        token_sha256: sha256(token),
        tenant_refs: tenants.to_vec(),
    };
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: tls_files(dir, "scheduler"),
        cluster_id: "test".to_owned(),
        enclaves: enclaves.iter().map(|fake| fake.uri()).collect(),
        tenants: tenants
            .iter()
            .map(|tenant| TenantConfig {
                tenant_ref: *tenant,
                weight: 1,
                max_queued: 1_000,
            })
            .collect(),
        credentials: vec![credential(TOKEN, &tenants), credential(NARROW_TOKEN, &tenants[..1])],
        policy: Policy {
            quantum: Duration::from_millis(50),
            linger: Duration::from_millis(5),
            ..Policy::default()
        },
        timeouts: Timeouts {
            first_byte: PATIENCE,
            idle: PATIENCE,
        },
        limits: Limits {
            keys_per_minute: 10_000,
            evidence_per_minute: 10_000,
            streams_per_connection: 512,
            stream_window: 64 * 1024,
        },
    }
}

pub fn sha256(text: &str) -> Sha256Digest {
    cloister_attestation::identity::sha256(&[text.as_bytes()])
}

fn decode(text: &str) -> Vec<u8> {
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap()
}
