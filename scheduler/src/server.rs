//! What clients can ask for.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{
        DefaultBodyLimit, Path, Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use cloister_attestation::{EnclaveId, ModelDigest, evidence::MAX_EVIDENCE_LEN};
use cloister_proto::EvidenceRequest;
use cloister_scheduler_core::{Rejection, Request};
use cloister_session::{REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE, TenantRef, outer::Header};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use crate::{
    auth::{Authorized, Credentials, Tenants},
    clock::Clock,
    config::Timeouts,
    dispatcher::{Dispatcher, Place, Turn},
    enclaves::Enclaves,
    forward::{Answer, Outcome, REQUESTS_PATH, forward, has_type, is_encoded},
    keys::Keys,
    limiter::Limiter,
    metrics::Metrics,
    refusal::{Code, Refusal},
    upload::Upload,
};

/// Longest body of a request for evidence.
const MAX_EVIDENCE_REQUEST: usize = 1024;
/// Time for an enclave to make evidence: an attestation report takes a while.
const EVIDENCE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

/// What the handlers share.
pub(crate) struct Service {
    pub(crate) clock: Clock,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) credentials: Credentials,
    pub(crate) enclaves: Enclaves,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) keys: Keys,
    pub(crate) key_limiter: Limiter,
    pub(crate) evidence_limiter: Limiter,
    pub(crate) timeouts: Timeouts,
    pub(crate) metrics: Arc<Metrics>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysQuery {
    model: ModelDigest,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeysReply {
    /// Signed objects in base64.
    key_configs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceQuery {
    #[serde(with = "hex")]
    nonce: [u8; 32],
}

#[derive(Serialize)]
struct Health {
    enclaves: usize,
    reachable: usize,
}

pub(crate) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route(
            REQUESTS_PATH,
            // The body is streamed, and capped where it is read.
            post(requests).layer(DefaultBodyLimit::disable()),
        )
        .route("/cloister/v1/tenants/{tenant}/keys", get(keys))
        .route(
            "/cloister/v1/tenants/{tenant}/enclaves/{enclave}/evidence",
            post(evidence).layer(DefaultBodyLimit::max(MAX_EVIDENCE_REQUEST)),
        )
        .route("/healthz", get(health))
        .fallback(no_such_resource)
        .with_state(service)
}

async fn requests(State(service): State<Arc<Service>>, headers: HeaderMap, body: Body) -> Response {
    let answer = service.serve(&headers, body).await;
    service.respond(answer)
}

async fn keys(
    State(service): State<Arc<Service>>,
    Path(tenant): Path<String>,
    query: Result<Query<KeysQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        let caller = service.authorize(&headers, &tenant)?;
        let Query(query) = query.map_err(|_| Code::Malformed)?;
        if !service.key_limiter.take(service.clock.now(), caller.tenant) {
            return Err(Code::QueueFull);
        }
        let offered = service.keys.offer(caller, &query.model).await?;
        let key_configs = offered.iter().map(|signed| STANDARD.encode(signed)).collect();
        Ok(Json(KeysReply { key_configs }))
    };
    let answer = answer.await;
    service.respond(answer.map_err(Refusal::from))
}

async fn evidence(
    State(service): State<Arc<Service>>,
    Path((tenant, enclave)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let answer = match &body {
        Ok(body) => service.evidence(&headers, &tenant, &enclave, body).await,
        Err(_) => Err(Code::Malformed),
    };
    service.respond(answer.map_err(Refusal::from))
}

async fn health(State(service): State<Arc<Service>>) -> Response {
    let live = |enclave: &&crate::enclaves::Enclave| service.dispatcher.live_boot(enclave.index).is_some();
    let health = Health {
        enclaves: service.enclaves.len(),
        reachable: service.enclaves.iter().filter(live).count(),
    };
    Json(health).into_response()
}

async fn no_such_resource() -> Response {
    let mut response = Refusal::from(Code::Malformed).into_response();
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

// === impl Service ===

impl Service {
    fn respond(&self, answer: Result<impl IntoResponse, Refusal>) -> Response {
        match answer {
            Ok(answer) => answer.into_response(),
            Err(refusal) => {
                self.metrics.refused(refusal.code);
                refusal.into_response()
            }
        }
    }

    /// The tenant of a path, if the credential is for it.
    fn authorize(&self, headers: &HeaderMap, tenant: &str) -> Result<Authorized, Code> {
        let caller = self.credentials.check(headers)?;
        let tenant: TenantRef = tenant.parse().map_err(|_| Code::Malformed)?;
        caller.tenant(&self.tenants, &tenant)
    }

    async fn serve(&self, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
        let caller = self.credentials.check(headers)?;
        if !has_type(headers, REQUEST_MEDIA_TYPE) || is_encoded(headers) {
            return Err(Code::UnsupportedMediaType.into());
        }
        let (header, upload) = Upload::begin(body).await.map_err(|_| Code::Malformed)?;
        let caller = caller.tenant(&self.tenants, &header.tenant_ref)?;
        let request = self.admit(caller, &header)?;
        let candidates = request.candidates.len();
        let place = self.dispatcher.submit(request);
        let answer = self.pursue(place, upload, candidates).await;
        answer.map_err(|refusal| Refusal {
            limit: (refusal.code == Code::QueueFull)
                .then(|| self.tenants.max_queued(caller.tenant))
                .flatten(),
            ..refusal
        })
    }

    /// What the scheduler needs to know of a request.
    fn admit(&self, caller: Authorized, header: &Header) -> Result<Request, Code> {
        let now = self.clock.unix();
        if header.expires() <= now {
            return Err(Code::Expired);
        }
        if !header.is_live(now) {
            // Made in the future: a wrong clock, or a life longer than allowed.
            return Err(Code::Malformed);
        }
        let candidates = self.keys.candidates(caller, &header.model, &header.candidates);
        if candidates.is_empty() {
            return Err(Code::UnknownKey);
        }
        Ok(Request {
            tenant: caller.tenant,
            candidates,
            deadline: self.clock.moment_of(header.expires()),
        })
    }

    /// Waits for a lease and sends the request there; the next candidate's turn comes if that fails before the enclave has the
    /// whole request. After that it may be running, and a second enclave would run it once more.
    async fn pursue(&self, mut place: Place, upload: Upload, candidates: usize) -> Result<Response, Refusal> {
        // What the last candidate said is worth more than that there is no other.
        let mut last = None;
        let mut failures = 0;
        loop {
            let replica = match place.turn().await {
                Turn::Dispatched(replica) => replica,
                Turn::Rejected(Rejection::CandidateUnavailable) => {
                    return Err(last.unwrap_or_else(|| Code::CandidateUnavailable.into()));
                }
                Turn::Rejected(reason) => return Err(reason.into()),
            };
            let (Some(enclave), Some(body)) = (self.enclaves.get(replica), upload.attempt()) else {
                return Err(Code::TooLargeToRetry.into());
            };
            let sent = Instant::now();
            match forward(enclave, body, self.timeouts.first_byte).await {
                Outcome::Answered(body) => {
                    self.metrics.answered(sent.elapsed());
                    upload.commit();
                    return Ok(answer(Answer::new(body, place, self.timeouts.idle)));
                }
                _ if upload.is_broken() => return Err(Code::Malformed.into()),
                Outcome::Improper => return Err(Code::UpstreamFailed.into()),
                Outcome::Refused { retryable } => {
                    let refusal = Refusal {
                        retryable,
                        ..Code::Refused.into()
                    };
                    if !retryable || !upload.is_replayable() {
                        return Err(refusal);
                    }
                    last = Some(refusal);
                    place.refused();
                }
                Outcome::Failed if upload.is_complete() => return Err(Code::UpstreamFailed.into()),
                Outcome::Failed | Outcome::NotTaken => {
                    failures += 1;
                    if failures < candidates && !upload.is_replayable() {
                        return Err(Code::TooLargeToRetry.into());
                    }
                    last = Some(Code::CandidateUnavailable.into());
                    place.retry();
                }
            }
            self.metrics.retried();
        }
    }

    async fn evidence(
        &self,
        headers: &HeaderMap,
        tenant: &str,
        enclave: &str,
        body: &[u8],
    ) -> Result<impl IntoResponse + use<>, Code> {
        let caller = self.authorize(headers, tenant)?;
        let name: EnclaveId = enclave.parse().map_err(|_| Code::Malformed)?;
        let query: EvidenceQuery = serde_json::from_slice(body).map_err(|_| Code::Malformed)?;
        if !self.evidence_limiter.take(self.clock.now(), caller.tenant) {
            return Err(Code::QueueFull);
        }
        let enclave = self.keys.enclave(caller, &name).ok_or(Code::UnknownKey)?;
        let request = EvidenceRequest {
            nonce: Bytes::copy_from_slice(&query.nonce),
            tenant_ref: Bytes::copy_from_slice(caller.tenant_ref.as_bytes()),
        };
        let reply = match timeout(EVIDENCE_TIMEOUT, enclave.keys().evidence(request)).await {
            Ok(Ok(reply)) => reply.into_inner().evidence,
            Ok(Err(status)) if status.code() == tonic::Code::ResourceExhausted => return Err(Code::QueueFull),
            Ok(Err(status)) => {
                tracing::debug!(enclave = enclave.authority(), code = ?status.code(), "no evidence");
                return Err(Code::CandidateUnavailable);
            }
            Err(_) => return Err(Code::CandidateUnavailable),
        };
        if reply.len() > MAX_EVIDENCE_LEN {
            return Err(Code::UpstreamFailed);
        }
        let json = HeaderValue::from_static("application/json");
        Ok(([(header::CONTENT_TYPE, json)], reply))
    }
}

fn answer(body: Answer) -> Response {
    let mut response = Response::new(Body::new(body));
    let media_type = HeaderValue::from_static(RESPONSE_MEDIA_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}
