//! The whole proxy, from a client's TCP connection to a scheduler over TLS, with the cluster played in this process.

use crate::config::{ProxyConfig, Timeouts};
use crate::doctor::{Report, Status, examine};
use crate::failure::Code;
use crate::relying::fake::{CLUSTER, FakeCluster, Lie, MODEL, policy};
use crate::relying::{SealedAnswer, Upstream};
use crate::retry::RetryPolicy;
use crate::tenant::{Issue, Tenant};
use crate::{clock, run, tenant};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, State};
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloister_attestation::{EnclaveId, Sha256Digest};
use cloister_session::credential::{SaltScope, TenantRoot};
use cloister_session::signing::SigningKey;
use cloister_session::{RESPONSE_MEDIA_TYPE, TenantRef};
use cloister_transport::pki::{self, Existing, Usage};
use cloister_transport::{ClientAuth, ServeLimits, TlsFiles, server_config};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A scheduler: checks the token and passes on.
struct Scheduler {
    cluster: Arc<FakeCluster>,
    token: Sha256Digest,
    tenant: TenantRef,
}

type Handled = State<Arc<Scheduler>>;

impl Scheduler {
    fn admit(&self, headers: &HeaderMap, tenant: Option<TenantRef>) -> Result<(), Box<Response>> {
        let token = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if token.is_none_or(|token| tenant::sha256(token) != self.token) {
            return Err(Box::new(refused(401, "unauthorized", false)));
        }
        if tenant.is_some_and(|tenant| tenant != self.tenant) {
            return Err(Box::new(refused(403, "unknown_tenant", false)));
        }
        Ok(())
    }
}

fn refused(status: u16, code: &str, retryable: bool) -> Response {
    Response::builder()
        .status(status)
        .header("cloister-code", code)
        .header("cloister-retryable", retryable.to_string())
        .body(Body::from(json!({ "code": code, "retryable": retryable }).to_string()))
        .unwrap()
}

async fn keys(State(scheduler): Handled, UrlPath(tenant): UrlPath<String>, headers: HeaderMap) -> Response {
    let tenant = tenant.parse().unwrap();
    if let Err(refusal) = scheduler.admit(&headers, Some(tenant)) {
        return *refusal;
    }
    let objects = scheduler.cluster.key_configs(&tenant, &MODEL).await.unwrap();
    let objects: Vec<_> = objects.iter().map(|object| STANDARD.encode(object)).collect();
    Response::new(Body::from(json!({ "keyConfigs": objects }).to_string()))
}

async fn evidence(
    State(scheduler): Handled,
    UrlPath((tenant, enclave)): UrlPath<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (tenant, enclave): (TenantRef, EnclaveId) = (tenant.parse().unwrap(), enclave.parse().unwrap());
    if let Err(refusal) = scheduler.admit(&headers, Some(tenant)) {
        return *refusal;
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    let nonce: Sha256Digest = body["nonce"].as_str().unwrap().parse().unwrap();
    match scheduler.cluster.evidence(&tenant, &enclave, nonce.as_bytes()).await {
        Ok(evidence) => Response::new(Body::from(evidence)),
        Err(_) => refused(502, "upstream_failed", true),
    }
}

async fn requests(State(scheduler): Handled, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(refusal) = scheduler.admit(&headers, None) {
        return *refusal;
    }
    let answer: SealedAnswer = match scheduler.cluster.send(body).await {
        Ok(answer) => answer,
        Err(failure) if failure.code == Code::RateLimitExceeded => {
            let mut response = refused(429, "queue_full", true);
            response.headers_mut().insert("retry-after", "9".parse().unwrap());
            return response;
        }
        Err(failure) if failure.code == Code::UpstreamFailed => return refused(502, "upstream_failed", true),
        Err(failure) if failure.code == Code::UpstreamTimeout => std::future::pending().await,
        Err(_) => return refused(409, "unknown_key", true),
    };
    Response::builder()
        .header(CONTENT_TYPE, RESPONSE_MEDIA_TYPE)
        .body(Body::from_stream(answer))
        .unwrap()
}

/// Serves a scheduler over TLS; gives its address.
async fn start_scheduler(scheduler: Scheduler, dir: &Path) -> SocketAddr {
    pki::create(dir, Existing::Keep).unwrap();
    pki::issue(dir, "scheduler", &["127.0.0.1"], Usage::Server, Existing::Keep).unwrap();
    let file = |name: &str| dir.join(name);
    let files = TlsFiles {
        ca: file("ca.pem"),
        certificate: file("scheduler.pem"),
        key: file("scheduler.key"),
    };
    let tls = server_config(&files, ClientAuth::None).unwrap();
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/cloister/v1/requests", post(requests))
        .route("/cloister/v1/tenants/{tenant}/keys", get(keys))
        .route(
            "/cloister/v1/tenants/{tenant}/enclaves/{enclave}/evidence",
            post(evidence),
        )
        .with_state(Arc::new(scheduler));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(cloister_transport::serve(
        listener,
        tls,
        router,
        ServeLimits::default(),
        std::future::pending(),
    ));
    address
}

struct Set {
    cluster: Arc<FakeCluster>,
    config: ProxyConfig,
    dir: tempfile::TempDir,
}

/// A scheduler that runs, and the files of a proxy for it.
async fn set() -> Set {
    let dir = tempfile::tempdir().unwrap();
    let cluster = FakeCluster::new(2);
    let tenant = Tenant::at(dir.path(), "acme").unwrap();
    tenant.create().unwrap();
    let token = tenant.token().unwrap();
    let issue = Issue {
        member: "me".into(),
        cluster_id: CLUSTER.into(),
        models: vec![MODEL],
        life: 3600,
        salt_scope: SaltScope::Member,
    };
    let issued = tenant.issue(&issue, clock::now()).unwrap();
    let scheduler = Scheduler {
        cluster: cluster.clone(),
        token: token.sha256,
        tenant: tenant.reference(CLUSTER).unwrap(),
    };
    let pki = dir.path().join("pki");
    let address = start_scheduler(scheduler, &pki).await;
    let policy_path = dir.path().join("policy.yaml");
    std::fs::write(&policy_path, policy().to_yaml().unwrap()).unwrap();
    let second = Duration::from_secs(1);
    let config = ProxyConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        endpoint: format!("https://{address}").parse().unwrap(),
        ca: pki.join("ca.pem"),
        cluster_id: CLUSTER.into(),
        credential: issued.credential,
        member_key: issued.member_key,
        outer_token: token.path,
        policy: policy_path,
        policy_root: None,
        models: BTreeMap::from([("m".to_owned(), vec![MODEL])]),
        api_keys: None,
        receipts: None,
        collateral: None,
        candidates: 2,
        max_in_flight: 8,
        timeouts: Timeouts {
            connect: 10 * second,
            queue: 30 * second,
            first_byte: 30 * second,
            idle: 30 * second,
        },
        retries: RetryPolicy {
            attempts: 2,
            base: Duration::from_millis(1),
            max: second,
            after_execution: false,
        },
    };
    Set { cluster, config, dir }
}

impl Set {
    /// Runs the proxy; gives its address.
    async fn start_proxy(&self) -> SocketAddr {
        let (listening, address) = tokio::sync::oneshot::channel();
        let config = self.config.clone();
        tokio::spawn(async move {
            let told = |address| listening.send(address).unwrap();
            run::run(&config, std::future::pending(), told).await
        });
        address.await.unwrap()
    }
}

/// One request on a connection of its own; gives the whole answer as text.
async fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

const CHAT: (&str, &str, &str) = ("POST", "/v1/chat/completions", r#"{"model":"m","messages":[]}"#);

fn status(report: &Report, name: &str) -> Status {
    report.checks.iter().find(|check| check.name == name).unwrap().status
}

#[tokio::test]
async fn a_client_gets_an_answer() {
    let set = set().await;
    let proxy = set.start_proxy().await;
    let answer = exchange(proxy, CHAT.0, CHAT.1, CHAT.2).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("{\"answer\":true}"),
        "{answer}"
    );
    assert!(exchange(proxy, "GET", "/readyz", "").await.contains("SIMULATED"));
}

#[tokio::test]
async fn what_the_scheduler_refuses_reaches_the_client() {
    let set = set().await;
    let proxy = set.start_proxy().await;
    set.cluster.lie([Lie::Refuse(Code::RateLimitExceeded)]);
    let answer = exchange(proxy, CHAT.0, CHAT.1, CHAT.2).await;
    assert!(
        answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: 9\r\n"),
        "{answer}"
    );
    set.cluster.lie([Lie::Refuse(Code::KeysReplaced)]);
    let answer = exchange(proxy, CHAT.0, CHAT.1, CHAT.2).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "retried: {answer}");
    set.cluster.lie([Lie::Flip]);
    let answer = exchange(proxy, CHAT.0, CHAT.1, CHAT.2).await;
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("answer_not_authentic"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_may_have_run_is_not_sent_again() {
    let mut set = set().await;
    set.config.timeouts.queue = Duration::from_secs(1);
    set.config.timeouts.first_byte = Duration::from_millis(1);
    let proxy = set.start_proxy().await;
    for (code, answered) in [
        (Code::UpstreamFailed, "HTTP/1.1 502"),
        (Code::UpstreamTimeout, "HTTP/1.1 504"),
    ] {
        // After the lie the scheduler would answer.
        set.cluster.lie([Lie::Refuse(code)]);
        let answer = exchange(proxy, CHAT.0, CHAT.1, CHAT.2).await;
        assert!(answer.starts_with(answered), "{answer}");
        assert!(answer.contains("x-should-retry: false\r\n"), "{answer}");
    }
    set.config.retries.after_execution = true;
    let proxy = set.start_proxy().await;
    set.cluster.lie([Lie::Refuse(Code::UpstreamFailed)]);
    let answer = exchange(proxy, CHAT.0, CHAT.1, CHAT.2).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn a_wrong_token_is_the_clients_401() {
    let set = set().await;
    crate::files::replace_secret(&set.config.outer_token, b"another").unwrap();
    let proxy = set.start_proxy().await;
    let answer = exchange(proxy, CHAT.0, CHAT.1, CHAT.2).await;
    assert!(
        answer.starts_with("HTTP/1.1 401") && answer.contains("outer_token_refused"),
        "{answer}"
    );
}

#[tokio::test]
async fn the_doctor_finds_nothing_wrong() {
    let set = set().await;
    let report = examine(&set.config).await;
    assert!(report.is_good(), "{report:?}");
    assert_eq!(report.checks.len(), 9);
    let policy = report.checks.iter().find(|check| check.name == "policy").unwrap();
    assert_eq!(policy.status, Status::Warning);
    assert!(policy.detail.contains("SIMULATED"));
}

#[tokio::test]
async fn the_doctor_tells_what_fails_first() {
    let wrong_token = set().await;
    crate::files::replace_secret(&wrong_token.config.outer_token, b"another").unwrap();
    let report = examine(&wrong_token.config).await;
    assert_eq!(status(&report, "outer token"), Status::Failed);
    assert_eq!(status(&report, "key configurations"), Status::Skipped);

    let no_keys = set().await;
    no_keys.cluster.lie([Lie::NoKeys]);
    assert_eq!(
        status(&examine(&no_keys.config).await, "key configurations"),
        Status::Failed
    );

    let untrusted = set().await;
    std::fs::write(&untrusted.config.policy, "tees: [snp]\n").unwrap();
    let report = examine(&untrusted.config).await;
    assert_eq!(status(&report, "evidence"), Status::Failed);
    assert_eq!(status(&report, "models"), Status::Skipped);

    let alias = set().await;
    let models = BTreeMap::from([("alias".to_owned(), vec![MODEL])]);
    let report = examine(&ProxyConfig {
        models,
        ..alias.config.clone()
    })
    .await;
    assert_eq!(status(&report, "models"), Status::Failed);

    let one_machine = set().await;
    let mut spread = policy();
    spread.min_distinct_platforms = 2.try_into().unwrap();
    std::fs::write(&one_machine.config.policy, spread.to_yaml().unwrap()).unwrap();
    assert_eq!(status(&examine(&one_machine.config).await, "policy"), Status::Failed);
}

#[tokio::test]
async fn another_authority_is_not_connected_to() {
    let set = set().await;
    let other = set.dir.path().join("other");
    pki::create(&other, Existing::Keep).unwrap();
    let config = ProxyConfig {
        ca: other.join("ca.pem"),
        ..set.config.clone()
    };
    assert_eq!(status(&examine(&config).await, "endpoint"), Status::Failed);
}

#[tokio::test]
async fn a_policy_is_taken_from_the_tenants_root_and_not_from_the_cluster() {
    let set = set().await;
    let root = || TenantRoot::new(SigningKey::generate().unwrap());
    let (tenant, cluster, now) = (root(), root(), crate::clock::now());
    let config = ProxyConfig {
        policy_root: Some(tenant.tenant_id()),
        ..set.config.clone()
    };
    let found = |file: &[u8]| {
        std::fs::write(&config.policy, file).unwrap();
        crate::run::trusted_policy(&config, now)
    };
    let signed_by = |root: &TenantRoot| root.sign_policy(&policy(), now, now.plus(60)).unwrap().to_bytes();
    assert_eq!(found(&signed_by(&tenant)).unwrap(), policy());
    let other = found(&signed_by(&cluster)).unwrap_err();
    assert!(other.to_string().contains("signed by tenant root"), "{other}");
    let unsigned = found(policy().to_yaml().unwrap().as_bytes()).unwrap_err();
    assert!(unsigned.to_string().contains("malformed signed policy"), "{unsigned}");
}
