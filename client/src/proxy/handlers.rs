//! One function per route.

use super::metrics::{Observed, Outcome};
use super::stream::{self, Relay};
use super::{BODY_TIMEOUT, MAX_BODY_BYTES, QUEUED_COMMENT_EVERY, Shared, unknown_model};
use crate::backend::Call;
use crate::failure::{Code, Failure};
use crate::openai::{Endpoint, error_response, peek};
use crate::retry::{self, Complete};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use cloister_session::inner::InnerRequest;
use futures::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

type Handled = State<Arc<Shared>>;

/// How much of a refused body is taken in, bytes.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;
/// How long a refused body is taken in.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn chat_completions(State(shared): Handled, request: Request) -> Response {
    answer(shared, Endpoint::ChatCompletions, request).await
}

pub(super) async fn responses(State(shared): Handled, request: Request) -> Response {
    answer(shared, Endpoint::Responses, request).await
}

pub(super) async fn completions(State(shared): Handled, request: Request) -> Response {
    answer(shared, Endpoint::Completions, request).await
}

pub(super) async fn embeddings(State(shared): Handled, request: Request) -> Response {
    answer(shared, Endpoint::Embeddings, request).await
}

pub(super) async fn models(State(shared): Handled) -> Response {
    let data: Vec<_> = shared.surface.models.iter().map(|name| model_object(name)).collect();
    json_response(&json!({ "object": "list", "data": data }))
}

pub(super) async fn model(State(shared): Handled, Path(id): Path<String>) -> Response {
    match unknown_model(shared.surface.models.contains(&id)) {
        Ok(()) => json_response(&model_object(&id)),
        Err(failure) => error_response(&failure),
    }
}

/// The process runs.
pub(super) async fn healthz() -> Response {
    json_response(&json!({ "status": "ok" }))
}

/// A request would find an attested candidate with a live key.
pub(super) async fn readyz(State(shared): Handled) -> Response {
    match shared.surface.backend.ready().await {
        Ok(readiness) => json_response(&json!({ "status": "ready", "tee": readiness.tee })),
        Err(failure) => {
            let mut response = error_response(&failure);
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            response
        }
    }
}

pub(super) async fn not_found() -> Response {
    error_response(&Failure::new(
        Code::NotFound,
        "no such path: the proxy serves POST /v1/chat/completions, /v1/responses, /v1/completions, /v1/embeddings, \
         and GET /v1/models",
    ))
}

pub(super) async fn method_not_allowed() -> Response {
    error_response(&Failure::new(
        Code::MethodNotAllowed,
        "this path does not take this method",
    ))
}

async fn answer(shared: Arc<Shared>, endpoint: Endpoint, request: Request) -> Response {
    let mut observed = shared.metrics.observe(endpoint);
    match admitted(&shared, endpoint, request).await {
        Ok((call, true, permit)) => streamed(&shared, call, observed, permit).await,
        Ok((call, false, _permit)) => buffered(&shared, &call, &mut observed).await,
        Err(failure) => refuse(&failure, &mut observed),
    }
}

/// Reads and checks a request. Gives the call, whether it streams, and the permit that it holds until its end.
async fn admitted(
    shared: &Shared,
    endpoint: Endpoint,
    request: Request,
) -> Result<(Call, bool, tokio::sync::OwnedSemaphorePermit), Failure> {
    let permit = shared.permits.clone().try_acquire_owned().map_err(|_| {
        Failure::retryable(
            Code::TooManyCalls,
            "the proxy has its configured number of calls in flight (maxInFlight)",
        )
    })?;
    let (head, body) = request.into_parts();
    if let Err(failure) = check_headers(&head.headers) {
        discard(body);
        return Err(failure);
    }
    let body = tokio::time::timeout(BODY_TIMEOUT, read_body(body))
        .await
        .map_err(|_| Failure::new(Code::RequestTimeout, "the body did not arrive within 60 s"))??;
    let peeked = peek(endpoint, &body)?;
    unknown_model(shared.surface.models.contains(&peeked.model))?;
    let inner = Arc::new(InnerRequest { path: endpoint, body });
    let call = Call {
        model: peeked.model,
        inner,
    };
    Ok((call, peeked.stream, permit))
}

fn check_headers(headers: &HeaderMap) -> Result<(), Failure> {
    let media_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(stream::media_type)
        .unwrap_or_default();
    // Besides its meaning this keeps web pages out: a browser sends this type elsewhere only after asking.
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Failure::new(
            Code::UnsupportedMediaType,
            "send \"Content-Type: application/json\"",
        ));
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|value| value != "identity") {
        return Err(Failure::new(
            Code::UnsupportedMediaType,
            "Content-Encoding is refused: send the JSON as it is",
        ));
    }
    Ok(())
}

async fn read_body(mut body: Body) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let expected = http_body::Body::size_hint(&body).lower();
    if usize::try_from(expected).map_or(true, |expected| expected > MAX_BODY_BYTES) {
        return Err(too_large(body));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::new(Code::InvalidRequest, "the body was cut off"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len().saturating_add(data.len()) > MAX_BODY_BYTES {
            return Err(too_large(body));
        }
        grow(&mut bytes, data.len());
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn too_large(rest: Body) -> Failure {
    discard(rest);
    Failure::new(Code::RequestTooLarge, "the body is over 8 MiB less 1 KiB")
}

/// Takes in what is left of a refused body, within bounds. Clients send all of it before they look at the answer, and would
/// find a broken connection instead.
fn discard(mut body: Body) {
    tokio::spawn(tokio::time::timeout(DISCARD_TIMEOUT, async move {
        let mut left = MAX_DISCARDED_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, bytes::Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }));
}

/// Makes room without leaving an unwiped copy behind, which is what `Vec` does when it moves.
fn grow(bytes: &mut Zeroizing<Vec<u8>>, additional: usize) {
    if bytes.capacity().saturating_sub(bytes.len()) >= additional {
        return;
    }
    let needed = bytes.len().saturating_add(additional);
    let mut larger = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two()));
    larger.extend_from_slice(bytes);
    *bytes = larger;
}

async fn buffered(shared: &Shared, call: &Call, observed: &mut Observed) -> Response {
    let surface = &shared.surface;
    match retry::whole(&*surface.backend, &surface.retry, call).await {
        Ok(complete) => whole_response(complete, observed),
        Err(failure) => refuse(&failure, observed),
    }
}

async fn streamed(
    shared: &Shared,
    call: Call,
    mut observed: Observed,
    permit: tokio::sync::OwnedSemaphorePermit,
) -> Response {
    let (backend, policy) = (shared.surface.backend.clone(), shared.surface.retry);
    let endpoint = call.inner.path;
    let mut head = async move { retry::head(&*backend, &policy, &call).await }.boxed();
    match tokio::time::timeout(QUEUED_COMMENT_EVERY, &mut head).await {
        Err(_) => event_stream(Relay::waiting(endpoint, head, observed, permit)),
        Ok(Ok(answer)) if stream::is_event_stream(&answer) => {
            observed.head();
            event_stream(Relay::streaming(endpoint, answer, observed, permit))
        }
        Ok(Ok(answer)) => match retry::collect(answer).await {
            Ok(complete) => whole_response(complete, &mut observed),
            Err(failure) => refuse(&failure, &mut observed),
        },
        Ok(Err(failure)) => refuse(&failure, &mut observed),
    }
}

fn event_stream(relay: Relay) -> Response {
    let mut response = Response::new(relay.into_body());
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn whole_response(complete: Complete, observed: &mut Observed) -> Response {
    let status = http::StatusCode::from_u16(complete.status);
    // The two types that the API has; anything else is not taken over even from an enclave.
    let content_type = match stream::media_type(&complete.content_type) {
        "application/json" => HeaderValue::from_static("application/json"),
        "text/event-stream" => HeaderValue::from_static("text/event-stream; charset=utf-8"),
        _ => return refuse(&outside_protocol(), observed),
    };
    let Ok(status) = status else {
        return refuse(&outside_protocol(), observed);
    };
    observed.head();
    observed.outcome(Outcome::of_status(complete.status));
    let mut response = Response::new(Body::from(complete.body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn outside_protocol() -> Failure {
    Failure::new(
        Code::UpstreamFailed,
        "the enclave's answer has a head outside the protocol",
    )
}

fn refuse(failure: &Failure, observed: &mut Observed) -> Response {
    observed.outcome(Outcome::Failed(failure.code));
    tracing::info!(code = failure.code.as_str(), "call failed");
    error_response(failure)
}

fn model_object(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "cloister" })
}

fn json_response(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
