//! What answers on the socket, by what it answers.

use http::StatusCode;
use serde_json::Value;

use crate::connection::Connector;
use crate::engine::Capabilities;
use crate::error::{EngineError, StartError};

use super::Dialect;

/// Versions whose reset was read and tried. Any other is emptied by restart only.
///
/// vLLM: the simulated engine alone. Real ones say whether a reset succeeded since 0.26.0, and come on the list as they
/// are tried on a GPU.
const LLAMACPP_VERSIONS: &[&str] = &["xllamacpp-2026.10.11549"];
const VLLM_VERSIONS: &[&str] = &["0.0.0+cloister.simulated.1"];

/// Longest version or model name in bytes.
const MAX_NAME: usize = 256;
/// Most slots of one engine.
const MAX_SLOTS: usize = 1024;

/// What an engine said of itself when it became ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub dialect: Dialect,
    pub version: String,
    pub model: String,
    pub capabilities: Capabilities,
    /// Ids of the slots; empty where there are none.
    pub slots: Vec<u64>,
}

impl Identity {
    /// Whether a reset of this engine is known to clear all that it holds.
    pub(crate) fn can_reset(&self) -> bool {
        let known = match self.dialect {
            Dialect::LlamaCpp => LLAMACPP_VERSIONS,
            Dialect::Vllm => VLLM_VERSIONS,
        };
        // Encoder and image caches are not on the list of what a reset clears.
        known.contains(&self.version.as_str()) && !self.capabilities.vision
    }
}

/// Asks the engine what it is, and refuses one that keeps state which no scrub clears.
///
/// # Errors
/// When it is neither dialect, does not answer as its dialect does, or shows such state.
pub(crate) async fn identify(connector: &Connector, vision: bool) -> Result<Identity, StartError> {
    let version = connector.get("/version").await?;
    if version.status == StatusCode::OK {
        return vllm(connector, &version.json("/version")?, vision).await;
    }
    let props = connector.get("/props").await?;
    if props.status == StatusCode::OK {
        return llamacpp(connector, &props.json("/props")?).await;
    }
    Err(StartError::UnknownDialect)
}

async fn vllm(connector: &Connector, version: &Value, vision: bool) -> Result<Identity, StartError> {
    let version = name(version.get("version"), "/version")?;
    let models = connector.get("/v1/models").await?.json("/v1/models")?;
    let served = list(&models, "/v1/models")?;
    // An adapter has the base model for its parent.
    if served
        .iter()
        .any(|model| model.get("parent").is_some_and(|parent| !parent.is_null()))
    {
        return Err(StartError::UnclearableState("LoRA adapters are loaded"));
    }
    let model = name(served.first().and_then(|model| model.get("id")), "/v1/models")?;
    let asleep = connector.get("/is_sleeping").await?;
    // Without the route the engine knows no sleep.
    if asleep.status == StatusCode::OK {
        match asleep.json("/is_sleeping")?.get("is_sleeping") {
            Some(Value::Bool(false)) => {}
            _ => {
                return Err(StartError::UnclearableState(
                    "it sleeps, so its memory is kept elsewhere",
                ));
            }
        }
    }
    let capabilities = Capabilities {
        vision,
        embeddings: true,
        parallel: None,
    };
    Ok(Identity {
        dialect: Dialect::Vllm,
        version,
        model,
        capabilities,
        slots: Vec::new(),
    })
}

async fn llamacpp(connector: &Connector, props: &Value) -> Result<Identity, StartError> {
    let params = props.pointer("/default_generation_settings/params");
    let params = params.ok_or(malformed("/props", "it has no generation settings"))?;
    if params
        .get("lora")
        .and_then(Value::as_array)
        .is_none_or(|adapters| !adapters.is_empty())
    {
        return Err(StartError::UnclearableState("LoRA adapters are loaded"));
    }
    if params
        .get("speculative.types")
        .and_then(Value::as_str)
        .is_some_and(|types| types != "none")
    {
        return Err(StartError::UnclearableState("a draft model is loaded"));
    }
    if props.get("is_sleeping").and_then(Value::as_bool) == Some(true) {
        return Err(StartError::UnclearableState("it sleeps"));
    }
    let models = connector.get("/v1/models").await?.json("/v1/models")?;
    let first = list(&models, "/v1/models")?.first();
    let model = name(first.and_then(|model| model.get("id")), "/v1/models")?;
    // The launcher names the wheel in a tag; the build number is not compiled into it.
    let tags = first.and_then(|model| model.get("tags")).and_then(Value::as_array);
    let tag = tags
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .find(|tag| tag.starts_with("xllamacpp-"));
    let version = match tag {
        Some(tag) => tag.to_owned(),
        None => name(props.get("build_info"), "/props")?,
    };
    let slots = slot_ids(&connector.get("/slots").await?.json("/slots")?)?;
    let capabilities = Capabilities {
        vision: props
            .pointer("/modalities/vision")
            .and_then(Value::as_bool)
            .unwrap_or(true),
        embeddings: true,
        parallel: u32::try_from(slots.len()).ok(),
    };
    Ok(Identity {
        dialect: Dialect::LlamaCpp,
        version,
        model,
        capabilities,
        slots,
    })
}

/// Ids of the slots; a slot with a draft model is refused.
pub(super) fn slot_ids(slots: &Value) -> Result<Vec<u64>, EngineError> {
    let slots = slots
        .as_array()
        .filter(|slots| !slots.is_empty() && slots.len() <= MAX_SLOTS);
    let slots = slots.ok_or(malformed("/slots", "it is not a list of slots"))?;
    slots
        .iter()
        .map(|slot| {
            match (
                slot.get("id").and_then(Value::as_u64),
                slot.get("speculative").and_then(Value::as_bool),
            ) {
                (Some(id), Some(false)) => Ok(id),
                _ => Err(malformed("/slots", "a slot has no id, or a draft model")),
            }
        })
        .collect()
}

fn list<'a>(models: &'a Value, route: &'static str) -> Result<&'a Vec<Value>, EngineError> {
    models
        .get("data")
        .and_then(Value::as_array)
        .ok_or(malformed(route, "it has no list of models"))
}

fn name(value: Option<&Value>, route: &'static str) -> Result<String, EngineError> {
    value
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty() && name.len() <= MAX_NAME)
        .map(ToOwned::to_owned)
        .ok_or(malformed(route, "a name is missing or too long"))
}

const fn malformed(route: &'static str, reason: &'static str) -> EngineError {
    EngineError::Malformed { route, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn identity(dialect: Dialect, version: &str, vision: bool) -> Identity {
        let capabilities = Capabilities {
            vision,
            embeddings: true,
            parallel: None,
        };
        Identity {
            dialect,
            version: version.to_owned(),
            model: "m".to_owned(),
            capabilities,
            slots: Vec::new(),
        }
    }

    #[test]
    fn only_listed_versions_without_vision_are_reset() {
        assert!(identity(Dialect::LlamaCpp, "xllamacpp-2026.10.11549", false).can_reset());
        assert!(!identity(Dialect::LlamaCpp, "xllamacpp-2026.10.11549", true).can_reset());
        assert!(!identity(Dialect::LlamaCpp, "xllamacpp-2026.11.1", false).can_reset());
        assert!(!identity(Dialect::LlamaCpp, "0.0.0+cloister.simulated.1", false).can_reset());
        assert!(!identity(Dialect::Vllm, "0.11.0", false).can_reset());
    }

    #[test]
    fn slots_with_a_draft_model_are_refused() {
        assert_eq!(
            slot_ids(&json!([{"id": 0, "speculative": false}])).expect("one slot"),
            [0]
        );
        for slots in [
            json!([]),
            json!({}),
            json!([{"id": 0, "speculative": true}]),
            json!([{"id": 0}]),
        ] {
            assert!(slot_ids(&slots).is_err(), "{slots}");
        }
    }
}
