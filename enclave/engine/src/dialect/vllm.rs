//! vLLM's server, and what speaks like it: its state is the prefix cache.

use http::Method;
use serde_json::{Value, json};

use crate::connection::{Connector, ControlAnswer};
use crate::engine::EngineLoad;
use crate::error::{EngineError, ScrubFailure};
use crate::metrics;

use super::identify::Identity;
use super::planted::{Planted, cached_tokens};

const COMPLETIONS: &str = "/v1/completions";
const RESET: &str = "/reset_prefix_cache";

pub(super) async fn load(connector: &Connector) -> Result<EngineLoad, EngineError> {
    let answer = connector.get("/metrics").await?;
    let text = String::from_utf8_lossy(&answer.body);
    // The second is the name in versions before 0.10.
    let usage = match metrics::sum(&text, "vllm:kv_cache_usage_perc")? {
        Some(usage) => usage,
        None => metrics::sum(&text, "vllm:gpu_cache_usage_perc")?.ok_or(EngineError::Malformed {
            route: "/metrics",
            reason: "the KV cache's usage is missing",
        })?,
    };
    Ok(EngineLoad {
        running: metrics::count(&text, "vllm:num_requests_running")?,
        waiting: metrics::count(&text, "vllm:num_requests_waiting")?,
        kv_usage: Some(usage),
    })
}

/// Runs the planted prefix. Its cached tokens.
pub(super) async fn run_planted(
    connector: &Connector,
    identity: &Identity,
    planted: &Planted,
) -> Result<u64, EngineError> {
    let body = json!({
        "model": identity.model, "prompt": planted.long(), "max_tokens": 1, "temperature": 0,
        "cache_salt": planted.salt(),
    });
    let answer = connector
        .control(Method::POST, COMPLETIONS, COMPLETIONS, &body)
        .await?
        .json(COMPLETIONS)?;
    cached_tokens(&answer, COMPLETIONS)
}

pub(super) async fn reset(connector: &Connector) -> Result<(), ScrubFailure> {
    let answer = connector.control(Method::POST, RESET, RESET, &Value::Null).await?;
    confirmed(&answer)
}

/// Only a status of 200 with `{"success": true}` confirms a reset: some versions answer 200 to one that failed.
fn confirmed(answer: &ControlAnswer) -> Result<(), ScrubFailure> {
    if answer.status != http::StatusCode::OK {
        return Err(ScrubFailure::Engine(EngineError::Status {
            route: RESET,
            status: answer.status.as_u16(),
        }));
    }
    if answer.body.is_empty() {
        return Err(ScrubFailure::ResetUnconfirmed("the answer is empty"));
    }
    let body: Value =
        serde_json::from_slice(&answer.body).map_err(|_| ScrubFailure::ResetUnconfirmed("the answer is not JSON"))?;
    match body.get("success") {
        Some(Value::Bool(true)) => Ok(()),
        Some(Value::Bool(false)) => Err(ScrubFailure::ResetUnconfirmed("the engine says that it failed")),
        _ => Err(ScrubFailure::ResetUnconfirmed(
            "the answer does not say whether it succeeded",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    #[test]
    fn only_an_explicit_success_confirms() {
        let answer = |status, body: &'static str| ControlAnswer {
            status,
            body: body.into(),
        };
        assert!(confirmed(&answer(StatusCode::OK, "{\"success\": true}")).is_ok());
        for (status, body) in [
            (StatusCode::OK, ""),
            (StatusCode::OK, "OK"),
            (StatusCode::OK, "{}"),
            (StatusCode::OK, "true"),
            (StatusCode::OK, "{\"success\": false}"),
            (StatusCode::OK, "{\"success\": \"true\"}"),
            (StatusCode::OK, "{\"success\": 1}"),
            (StatusCode::ACCEPTED, "{\"success\": true}"),
            (StatusCode::NOT_FOUND, "{\"success\": true}"),
        ] {
            assert!(confirmed(&answer(status, body)).is_err(), "{status} {body}");
        }
    }
}
