//! `/v1/embeddings`: unit vectors made from a hash.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiError;
use super::chat::{check_model, check_salt};
use super::completions::Prompt;
use crate::cache::hash_of;
use crate::server::App;
use crate::text;

/// Longest embedding.
const MAX_DIMENSIONS: usize = 8192;

#[derive(Deserialize)]
pub(super) struct Request {
    model: Option<String>,
    input: Prompt,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
    cache_salt: Option<String>,
}

pub(super) async fn handle(
    State(app): State<App>,
    body: Result<Json<Request>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    let Json(request) = body.map_err(|rejection| ApiError::bad(rejection.body_text()))?;
    check_model(&app, request.model.as_deref())?;
    check_salt(request.cache_salt.as_deref())?;
    if app.shared.faults().hang {
        std::future::pending::<()>().await;
    }
    let dimensions = request.dimensions.unwrap_or(app.shared.config.dimensions);
    if dimensions == 0 || dimensions > MAX_DIMENSIONS {
        return Err(ApiError::bad(format!(
            "dimensions must be between 1 and {MAX_DIMENSIONS}"
        )));
    }
    let inputs = request.input.texts();
    let tokens: usize = inputs.iter().map(|input| text::tokenize(input).len()).sum();
    let profile = app.shared.config.profile;
    tokio::time::sleep(profile.overhead + profile.per_prompt_token.mul_f64(tokens as f64)).await;
    let as_base64 = request.encoding_format.as_deref() == Some("base64");
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let vector = embed(input, dimensions);
            let embedding = if as_base64 {
                json!(STANDARD.encode(vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    Ok(Json(json!({
        "id": "embd-simulated", "object": "list", "model": app.shared.config.model, "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    })))
}

fn embed(input: &str, dimensions: usize) -> Vec<f32> {
    let raw: Vec<f32> = (0..dimensions)
        .map(|axis| (hash_of(&(input, axis)) % 2001) as f32 / 1000.0 - 1.0)
        .collect();
    let length = raw
        .iter()
        .map(|value| value * value)
        .sum::<f32>()
        .sqrt()
        .max(f32::MIN_POSITIVE);
    raw.into_iter().map(|value| value / length).collect()
}
