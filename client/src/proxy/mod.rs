//! The HTTP surface: OpenAI's API on a loopback address, over something that answers calls.

mod access;
mod handlers;
mod metrics;
mod serve;
mod stream;

pub use access::{ApiKeys, KeyFileError};
pub use serve::{ServeError, bind, serve};
pub use stream::QUEUED_COMMENT_EVERY;

use crate::backend::{Attempt, Ready};
use crate::failure::{Code, Failure};
use crate::openai::error_response;
use crate::retry::RetryPolicy;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use http::HeaderValue;
use http::header::HeaderName;
use metrics::Metrics;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Largest request body, bytes: the largest padding bucket of the wire format less room for the head of the inner message.
pub const MAX_BODY_BYTES: usize = 8 * 1024 * 1024 - 1024;

/// Time that a client has to send its body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Everything the surface needs.
pub struct Surface {
    /// Answers calls.
    pub backend: Arc<dyn Backend>,
    /// Names that clients may ask for.
    pub models: BTreeSet<String>,
    /// Keys that clients must present, when there are any.
    pub api_keys: Option<ApiKeys>,
    /// How often to try a call again.
    pub retry: RetryPolicy,
    /// Calls in flight at most. Each may hold one body.
    pub max_in_flight: usize,
}

/// A backend that answers calls and knows whether it could.
pub trait Backend: Attempt + Ready {}

impl<T: Attempt + Ready> Backend for T {}

struct Shared {
    surface: Surface,
    permits: Arc<Semaphore>,
    metrics: Metrics,
}

/// The routes of the proxy. Every answer, errors included, has an `x-request-id` and OpenAI's error format.
pub fn router(surface: Surface) -> Router {
    let shared = Arc::new(Shared {
        permits: Arc::new(Semaphore::new(surface.max_in_flight)),
        metrics: Metrics::new(),
        surface,
    });
    Router::new()
        .route("/v1/chat/completions", post(handlers::chat_completions))
        .route("/v1/responses", post(handlers::responses))
        .route("/v1/completions", post(handlers::completions))
        .route("/v1/embeddings", post(handlers::embeddings))
        .route("/v1/models", get(handlers::models))
        .route("/v1/models/{*id}", get(handlers::model))
        .layer(middleware::from_fn_with_state(shared.clone(), admit))
        .route("/healthz", get(handlers::healthz))
        .route("/readyz", get(handlers::readyz))
        .method_not_allowed_fallback(handlers::method_not_allowed)
        .fallback(handlers::not_found)
        .layer(middleware::from_fn(tag))
        .with_state(shared)
}

/// Who may call: a web page must not reach the proxy by a name that it made point here, and keys are checked when configured.
async fn admit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let admitted = match &shared.surface.api_keys {
        Some(keys) => keys.admit(request.headers()),
        None => access::admit_local(&request),
    };
    match admitted {
        Ok(()) => next.run(request).await,
        Err(failure) => error_response(&failure),
    }
}

/// A random id per answer, for the client's own records. It is not the sealed request's id, which must not leave the seal.
async fn tag(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let id = format!("req_{}", hex::encode(crate::random::bytes::<16>()));
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn unknown_model(model_known: bool) -> Result<(), Failure> {
    if model_known {
        return Ok(());
    }
    Err(Failure::new(
        Code::ModelNotFound,
        "this model is not in the proxy's configuration: GET /v1/models lists those that are",
    )
    .with_param("model"))
}

#[cfg(test)]
mod tests;
