//! The scheduler over HTTP/2.

use super::upstream::{SealedAnswer, Upstream};
use crate::config::Timeouts;
use crate::failure::{Code, Failure, RateLimit};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use cloister_attestation::evidence::MAX_EVIDENCE_LEN;
use cloister_attestation::{EnclaveId, ModelDigest};
use cloister_session::limits::MAX_SIGNED_OBJECT;
use cloister_session::{REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE, TenantRef};
use cloister_transport::{ClientError, Http2Client};
use futures::{StreamExt, stream};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::timeout;

/// Longest bearer token, bytes.
pub const MAX_TOKEN_BYTES: usize = 1024;

/// Longest list of key configurations, bytes of JSON.
const MAX_KEYS_JSON: usize = super::MAX_OFFERED * (MAX_SIGNED_OBJECT * 4 / 3 + 8);
/// Longest wait that a scheduler can ask for.
const MAX_RETRY_AFTER: u64 = 24 * 3600;

const CODE: HeaderName = HeaderName::from_static("cloister-code");
const RETRYABLE: HeaderName = HeaderName::from_static("cloister-retryable");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// A token file that holds no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a bearer token: one line of printable ASCII, made with `cloister tenant token`")]
pub struct TokenError;

/// Gives the `Authorization` header of each request, read again when the token file changes.
pub type TokenSource = Box<dyn Fn() -> Result<HeaderValue, Failure> + Send + Sync>;

/// A scheduler.
pub struct HttpUpstream {
    client: Http2Client,
    token: TokenSource,
    timeouts: Timeouts,
}

/// Makes the header of a token file's content. It is marked sensitive: it is never indexed by HTTP/2 and never printed.
///
/// # Errors
///
/// The content is not one line of printable ASCII.
pub fn parse_token(content: &[u8]) -> Result<HeaderValue, TokenError> {
    let token = content.trim_ascii();
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES || !token.iter().all(u8::is_ascii_graphic) {
        return Err(TokenError);
    }
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).map_err(|_| TokenError)?;
    value.set_sensitive(true);
    Ok(value)
}

// === impl HttpUpstream ===

impl HttpUpstream {
    /// Connects when the first request needs it.
    pub fn new(client: Http2Client, token: TokenSource, timeouts: Timeouts) -> Self {
        Self {
            client,
            token,
            timeouts,
        }
    }

    /// Asks whether anything answers. The token is not sent.
    ///
    /// # Errors
    ///
    /// The connection or TLS fails, or something answers that is no scheduler.
    pub async fn health(&self) -> Result<(), Failure> {
        let request = request(Method::GET, "/healthz", Bytes::new())?;
        let exchange = timeout(self.timeouts.connect, self.client.send(request)).await;
        let response = exchange.map_err(|_| silent())?.map_err(|error| unreachable(&error))?;
        if response.status() == StatusCode::OK {
            return Ok(());
        }
        Err(Failure::retryable(
            Code::UpstreamFailed,
            format!("GET /healthz answers {}", response.status()),
        ))
    }

    /// A small request whose answer is read as a whole.
    async fn ask(&self, mut request: Request<Full<Bytes>>, limit: usize) -> Result<Bytes, Failure> {
        request.headers_mut().insert(AUTHORIZATION, (self.token)()?);
        let exchange = async {
            let response = self.client.send(request).await.map_err(|error| unreachable(&error))?;
            let response = accepted(response)?;
            read_all(response.into_body(), limit).await
        };
        timeout(self.timeouts.connect, exchange).await.map_err(|_| silent())?
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeyConfigs {
    key_configs: Vec<String>,
}

#[async_trait]
impl Upstream for HttpUpstream {
    async fn key_configs(&self, tenant: &TenantRef, model: &ModelDigest) -> Result<Vec<Vec<u8>>, Failure> {
        let path = format!("/cloister/v1/tenants/{tenant}/keys?model={model}");
        let json = self
            .ask(request(Method::GET, &path, Bytes::new())?, MAX_KEYS_JSON)
            .await?;
        let offered: KeyConfigs = serde_json::from_slice(&json).map_err(|_| outside_protocol())?;
        offered
            .key_configs
            .iter()
            .take(super::MAX_OFFERED)
            .map(|object| STANDARD.decode(object).map_err(|_| outside_protocol()))
            .collect()
    }

    async fn evidence(&self, tenant: &TenantRef, enclave: &EnclaveId, nonce: &[u8; 32]) -> Result<Vec<u8>, Failure> {
        let path = format!("/cloister/v1/tenants/{tenant}/enclaves/{enclave}/evidence");
        let body = serde_json::json!({ "nonce": hex::encode(nonce) }).to_string();
        let mut request = request(Method::POST, &path, Bytes::from(body))?;
        request
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(self.ask(request, MAX_EVIDENCE_LEN).await?.to_vec())
    }

    async fn send(&self, sealed: Bytes) -> Result<SealedAnswer, Failure> {
        let mut request = request(Method::POST, "/cloister/v1/requests", sealed)?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(REQUEST_MEDIA_TYPE));
        headers.insert(AUTHORIZATION, (self.token)()?);
        // A request may wait its whole time to live before it is an enclave's turn.
        let patience = self.timeouts.queue.saturating_add(self.timeouts.first_byte);
        let exchange = timeout(patience, self.client.send(request)).await;
        let response = exchange
            .map_err(|_| lost(silent()))?
            .map_err(|error| broken(&error))
            .and_then(accepted)?;
        if !is_sealed(&response) {
            return Err(Failure::new(
                Code::UpstreamFailed,
                "the endpoint answers with something that is not sealed: nothing of it is used",
            ));
        }
        Ok(records(response.into_body(), self.timeouts.idle))
    }
}

/// The body as a stream that fails when it is silent for too long.
fn records<B>(body: B, idle: Duration) -> SealedAnswer
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        loop {
            return match timeout(idle, body.frame()).await {
                Err(_) => Some((Err(lost(silent())), None)),
                Ok(None) => None,
                Ok(Some(Err(_))) => Some((Err(crate::retry::truncated()), None)),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Some((Ok(data), Some(body))),
                    // Trailers say nothing in this protocol.
                    Err(_) => continue,
                },
            };
        }
    })
    .boxed()
}

async fn read_all<B>(mut body: B, limit: usize) -> Result<Bytes, Failure>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::retryable(Code::UpstreamFailed, "the endpoint's answer was cut off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len().saturating_add(data.len()) > limit {
            return Err(outside_protocol());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

fn request(method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
    Request::builder()
        .method(method)
        .uri(path)
        .body(Full::new(body))
        .map_err(|_| Failure::new(Code::Internal, "a request to the scheduler cannot be built"))
}

/// A plaintext 200 is never an answer.
fn is_sealed<B>(response: &Response<B>) -> bool {
    response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value == RESPONSE_MEDIA_TYPE)
        && !response.headers().contains_key(CONTENT_ENCODING)
}

fn accepted<B>(response: Response<B>) -> Result<Response<B>, Failure> {
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(refusal(status, response.headers())),
    }
}

/// The scheduler's closed list of errors. They are hints of someone who is not trusted: they decide about retries and
/// what the client reads, nothing else.
fn refusal(status: StatusCode, headers: &HeaderMap) -> Failure {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let code = text(CODE).unwrap_or_default();
    let (reason, message) = match (code, status.as_u16()) {
        ("unauthorized", _) | ("", 401) => (
            Code::OuterTokenRefused,
            "the scheduler does not accept the outer token: add its SHA-256 to the scheduler's credentials",
        ),
        ("unknown_tenant", _) | ("", 403) => (
            Code::TenantRefused,
            "the scheduler does not know this tenant_ref, or the outer token does not cover it",
        ),
        ("unknown_key" | "window_ended", _) => (
            Code::KeysReplaced,
            "the sealing keys were replaced while the request waited",
        ),
        ("queue_full", _) | ("", 429) => (Code::RateLimitExceeded, "the scheduler's queue for this tenant is full"),
        ("expired", _) => (
            Code::QueueTimeout,
            "the request waited for an enclave longer than timeouts.queueSeconds",
        ),
        ("too_large_to_retry", _) => (
            Code::EnclaveUnavailable,
            "the chosen enclave could not take the request, and it is too large to be kept for another",
        ),
        ("candidate_unavailable", _) => (
            Code::EnclaveUnavailable,
            "none of the chosen enclaves can take the request now",
        ),
        ("refused", _) => (
            Code::EnclaveRefused,
            "the enclave refused the sealed request and says no more: check clocks, the credential and `cloister doctor`",
        ),
        ("malformed" | "unsupported_media_type", _) => (
            Code::UpstreamFailed,
            "the scheduler does not understand this proxy: their versions may not match",
        ),
        _ => (
            Code::UpstreamFailed,
            "the scheduler, or the enclave behind it, failed; the request may have run",
        ),
    };
    // What this list has a name for did not run, if the scheduler does what it should: it may lie, and then it can as well send a
    // request that it was given to every candidate by itself. Of a failure without a name nobody says so.
    let may_have_run = reason == Code::UpstreamFailed && status.is_server_error();
    Failure {
        retryable: !may_have_run && text(RETRYABLE) == Some("true"),
        may_have_run,
        retry_after: text(RETRY_AFTER)
            .and_then(|value| value.parse().ok())
            .map(|wait: u64| Duration::from_secs(wait.min(MAX_RETRY_AFTER))),
        rate_limit: (reason == Code::RateLimitExceeded).then(|| RateLimit {
            limit: text(LIMIT).and_then(|value| value.parse().ok()),
            remaining: text(REMAINING).and_then(|value| value.parse().ok()),
            reset: text(RESET)
                .and_then(|value| value.trim_end_matches('s').parse().ok())
                .map(|wait: u64| Duration::from_secs(wait.min(MAX_RETRY_AFTER))),
        }),
        ..Failure::new(reason, message)
    }
}

/// Of a request for keys, evidence or health: it can be repeated, whatever became of it.
fn unreachable(error: &ClientError) -> Failure {
    let code = if error.is_unprocessed() {
        Code::EndpointUnreachable
    } else {
        Code::UpstreamFailed
    };
    Failure::retryable(code, error.to_string())
}

/// Of a sealed request. Each enclave opens the same one at most once, but a new attempt is sealed anew and runs again.
fn broken(error: &ClientError) -> Failure {
    let failure = unreachable(error);
    if error.is_unprocessed() { failure } else { lost(failure) }
}

/// The failure of a sealed request that was under way.
fn lost(failure: Failure) -> Failure {
    Failure {
        retryable: false,
        may_have_run: true,
        ..failure
    }
}

fn silent() -> Failure {
    Failure::retryable(Code::UpstreamTimeout, "the endpoint did not answer in time")
}

fn outside_protocol() -> Failure {
    Failure::new(
        Code::UpstreamFailed,
        "the endpoint answers outside the protocol: check that it is a scheduler",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, headers: &[(&'static str, &str)]) -> Failure {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        refusal(StatusCode::from_u16(status).unwrap(), &map)
    }

    #[test]
    fn each_refusal_of_the_scheduler_has_its_status() {
        for (status, code, expected) in [
            (401, "unauthorized", 401),
            (403, "unknown_tenant", 403),
            (400, "malformed", 502),
            (415, "unsupported_media_type", 502),
            (409, "unknown_key", 503),
            (409, "window_ended", 503),
            (429, "queue_full", 429),
            (408, "expired", 504),
            (503, "too_large_to_retry", 503),
            (503, "candidate_unavailable", 503),
            (422, "refused", 502),
        ] {
            for retryable in [true, false] {
                let flag = if retryable { "true" } else { "false" };
                let failure = refused(status, &[("cloister-code", code), ("cloister-retryable", flag)]);
                assert_eq!(
                    (failure.code.status(), failure.retryable),
                    (expected, retryable),
                    "{code}"
                );
            }
        }
        for (status, code) in [(502, "upstream_failed"), (500, "made_up"), (503, "")] {
            let failure = refused(status, &[("cloister-code", code), ("cloister-retryable", "true")]);
            assert_eq!(failure.code.status(), 502, "{code}");
            assert!(failure.may_have_run && !failure.retryable, "{code}");
        }
        assert_eq!(refused(429, &[]).code, Code::RateLimitExceeded);
        assert!(!refused(503, &[]).retryable, "not said is no");
    }

    #[test]
    fn hints_are_numbers_within_bounds() {
        let headers = [
            ("cloister-code", "queue_full"),
            ("retry-after", "99999999"),
            ("x-ratelimit-limit-requests", "8"),
            ("x-ratelimit-remaining-requests", "many"),
            ("x-ratelimit-reset-requests", "3s"),
        ];
        let failure = refused(429, &headers);
        assert_eq!(failure.retry_after, Some(Duration::from_secs(MAX_RETRY_AFTER)));
        let rate = RateLimit {
            limit: Some(8),
            remaining: None,
            reset: Some(Duration::from_secs(3)),
        };
        assert_eq!(failure.rate_limit, Some(rate));
        assert_eq!(refused(502, &[("x-ratelimit-limit-requests", "8")]).rate_limit, None);
    }

    #[test]
    fn only_sealed_answers_are_answers() {
        let response = |headers: &[(&str, &str)]| {
            headers
                .iter()
                .fold(Response::builder(), |builder, (name, value)| {
                    builder.header(*name, *value)
                })
                .body(())
                .unwrap()
        };
        assert!(is_sealed(&response(&[("content-type", RESPONSE_MEDIA_TYPE)])));
        assert!(!is_sealed(&response(&[("content-type", "application/json")])));
        assert!(!is_sealed(&response(&[])));
        assert!(!is_sealed(&response(&[
            ("content-type", RESPONSE_MEDIA_TYPE),
            ("content-encoding", "gzip")
        ])));
    }

    #[test]
    fn tokens_are_one_line_and_never_printed() {
        let token = parse_token(b"secret\n").unwrap();
        assert_eq!(token, "Bearer secret");
        assert!(!format!("{token:?}").contains("secret"));
        for wrong in [
            &b""[..],
            b"\n",
            b"two words",
            b"two\nlines",
            &[b'x'; MAX_TOKEN_BYTES + 1],
        ] {
            assert!(parse_token(wrong).is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_answer_ends_with_a_failure() {
        let (_keep, receiver) = tokio::sync::mpsc::channel::<Result<http_body::Frame<Bytes>, std::io::Error>>(1);
        let body = http_body_util::StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let mut records = records(body, Duration::from_secs(3));
        let failure = records.next().await.unwrap().unwrap_err();
        assert_eq!((failure.code, failure.may_have_run), (Code::UpstreamTimeout, true));
        assert!(records.next().await.is_none());
    }

    #[tokio::test]
    async fn answers_over_the_limit_are_not_read() {
        let body = || Full::new(Bytes::from_static(b"12345678"));
        assert_eq!(&read_all(body(), 8).await.unwrap()[..], b"12345678");
        assert_eq!(read_all(body(), 7).await.unwrap_err().code, Code::UpstreamFailed);
    }
}
