//! llama.cpp's server: its state is its slots.

use futures::future::try_join_all;
use http::Method;
use serde_json::{Value, json};

use crate::connection::Connector;
use crate::engine::EngineLoad;
use crate::error::{EngineError, ScrubFailure};
use crate::metrics;

use super::identify::{Identity, slot_ids};
use super::planted::{Planted, cached_tokens};

const COMPLETIONS: &str = "/v1/completions";
const ERASE: &str = "/slots/N?action=erase";

pub(super) async fn load(connector: &Connector) -> Result<EngineLoad, EngineError> {
    let answer = connector.get("/metrics").await?;
    let text = String::from_utf8_lossy(&answer.body);
    let processing = metrics::count(&text, "llamacpp:requests_processing")?;
    let waiting = metrics::count(&text, "llamacpp:requests_deferred")?;
    let slots = connector.get("/slots").await?.json("/slots")?;
    let busy = |slot: &&Value| slot.get("is_processing").and_then(Value::as_bool) != Some(false);
    let slots = slots.as_array().ok_or(EngineError::Malformed {
        route: "/slots",
        reason: "it is not a list of slots",
    })?;
    let busy = slots.iter().filter(busy).count() as u64;
    // KV in use is what `erase` reports; the metrics do not show it.
    Ok(EngineLoad {
        running: processing.max(busy),
        waiting,
        kv_usage: None,
    })
}

/// Runs the planted prefix in every slot. The fewest cached tokens that a slot showed, and the most.
pub(super) async fn run_planted(
    connector: &Connector,
    identity: &Identity,
    planted: &Planted,
) -> Result<(u64, u64), EngineError> {
    let runs = identity.slots.iter().map(|slot| async move {
        // The enclave alone names slots: the field is on no client's allow-list.
        let body = json!({"prompt": planted.short(), "max_tokens": 1, "id_slot": slot, "cache_prompt": true});
        let answer = connector
            .control(Method::POST, COMPLETIONS, COMPLETIONS, &body)
            .await?
            .json(COMPLETIONS)?;
        cached_tokens(&answer, COMPLETIONS)
    });
    let cached = try_join_all(runs).await?;
    let fewest = cached.iter().min().copied().unwrap_or(0);
    Ok((fewest, cached.into_iter().max().unwrap_or(0)))
}

/// Erases every slot. The fewest tokens that a slot lost, and the most.
///
/// # Errors
/// When the slots are others than at the start, or one is not confirmed.
pub(super) async fn erase(connector: &Connector, identity: &Identity) -> Result<(u64, u64), ScrubFailure> {
    let slots = slot_ids(&connector.get("/slots").await?.json("/slots")?)?;
    if slots != identity.slots {
        return Err(ScrubFailure::ResetUnconfirmed(
            "the engine has other slots than when it started",
        ));
    }
    let erased = try_join_all(slots.into_iter().map(|slot| erase_slot(connector, slot))).await?;
    let fewest = erased.iter().min().copied().unwrap_or(0);
    Ok((fewest, erased.into_iter().max().unwrap_or(0)))
}

async fn erase_slot(connector: &Connector, slot: u64) -> Result<u64, ScrubFailure> {
    let target = format!("/slots/{slot}?action=erase");
    let answer = connector
        .control(Method::POST, &target, ERASE, &json!({}))
        .await?
        .json(ERASE)?;
    // The server answers for any id, so the id alone confirms nothing; the caller looks at the count.
    if answer.get("id_slot").and_then(Value::as_u64) != Some(slot) {
        return Err(ScrubFailure::ResetUnconfirmed("another slot was erased"));
    }
    answer
        .get("n_erased")
        .and_then(Value::as_u64)
        .ok_or(ScrubFailure::ResetUnconfirmed("the number of erased tokens is missing"))
}
