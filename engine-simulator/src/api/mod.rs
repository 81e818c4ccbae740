//! The routes.

mod admin;
mod chat;
mod completions;
mod embeddings;
mod plan;
mod responses;
mod run;
mod sse;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;

use crate::server::App;

/// Longest request body in bytes.
const MAX_BODY: usize = 64 * 1024 * 1024;

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::handle))
        .route("/v1/completions", post(completions::handle))
        .route("/v1/responses", post(responses::handle))
        .route("/v1/embeddings", post(embeddings::handle))
        .route("/v1/models", get(admin::models))
        .route("/version", get(admin::version))
        .route("/health", get(admin::health))
        .route("/metrics", get(admin::metrics))
        .route("/reset_prefix_cache", post(admin::reset_prefix_cache))
        .route("/sleep", post(admin::sleep))
        .route("/wake_up", post(admin::wake_up))
        .route("/is_sleeping", get(admin::is_sleeping))
        .route("/simulator/faults", get(admin::faults).post(admin::set_faults))
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "Not Found") })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(app)
}

/// An error in vLLM's form.
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let kind = if self.status == StatusCode::NOT_FOUND {
            "NotFoundError"
        } else {
            "BadRequestError"
        };
        let error = json!({"message": self.message, "type": kind, "param": null, "code": self.status.as_u16()});
        (self.status, axum::Json(json!({"error": error}))).into_response()
    }
}
