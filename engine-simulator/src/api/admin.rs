//! Routes for whoever runs the engine.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::ApiError;
use crate::faults::{Faults, ResetFault};
use crate::metrics;
use crate::server::App;

pub(super) async fn version(State(app): State<App>) -> Json<Value> {
    Json(json!({"version": app.shared.config.version, "simulated": true}))
}

pub(super) async fn health() -> StatusCode {
    StatusCode::OK
}

pub(super) async fn models(State(app): State<App>) -> Json<Value> {
    let config = &app.shared.config;
    let model = |id: &str, parent: Option<&str>| {
        json!({
            "id": id, "object": "model", "created": 0, "owned_by": "cloister-engine-simulator", "root": config.model,
            "parent": parent, "max_model_len": config.max_model_len, "simulated": true,
        })
    };
    let mut data = vec![model(&config.model, None)];
    if app.shared.faults().lora {
        data.push(model("simulated-adapter", Some(&config.model)));
    }
    Json(json!({"object": "list", "data": data}))
}

pub(super) async fn metrics(State(app): State<App>) -> Response {
    let shared = &app.shared;
    let faults = shared.faults();
    let text = if faults.no_metrics {
        String::new()
    } else {
        metrics::render(
            &shared.load,
            &shared.config.model,
            shared.config.kv_blocks,
            faults.never_idle,
        )
    };
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

pub(super) async fn reset_prefix_cache(State(app): State<App>) -> Response {
    match app.shared.faults().reset {
        ResetFault::None => {
            // As in vLLM, blocks in use cannot be reset.
            let idle = app.shared.load.running() == 0;
            if idle {
                app.shared.cache().clear();
            }
            Json(json!({"success": idle})).into_response()
        }
        ResetFault::Empty => StatusCode::OK.into_response(),
        ResetFault::Refused => Json(json!({"success": false})).into_response(),
        ResetFault::Leak => Json(json!({"success": true})).into_response(),
        ResetFault::Missing => ApiError::new(StatusCode::NOT_FOUND, "Not Found").into_response(),
        ResetFault::Hang => std::future::pending().await,
    }
}

pub(super) async fn sleep(State(app): State<App>) -> StatusCode {
    app.shared.asleep.store(true, Ordering::Release);
    app.shared.cache().clear();
    StatusCode::OK
}

pub(super) async fn wake_up(State(app): State<App>) -> StatusCode {
    app.shared.asleep.store(false, Ordering::Release);
    StatusCode::OK
}

pub(super) async fn is_sleeping(State(app): State<App>) -> Json<Value> {
    Json(json!({"is_sleeping": app.shared.asleep.load(Ordering::Acquire)}))
}

pub(super) async fn faults(State(app): State<App>) -> Json<Faults> {
    Json(app.shared.faults())
}

pub(super) async fn set_faults(State(app): State<App>, Json(faults): Json<Faults>) -> Json<Faults> {
    app.shared.set_faults(faults.clone());
    Json(faults)
}
