//! What an engine speaks, what state it holds, and how that state is cleared.

mod identify;
mod llamacpp;
mod planted;
mod vllm;

pub use cloister_enclave_openai::Dialect;

use crate::connection::Connector;
use crate::engine::EngineLoad;
use crate::error::{EngineError, ScrubFailure};
use crate::proof::Observations;

pub(crate) use identify::{Identity, identify};
pub(crate) use planted::Planted;

/// One kind of state that an engine may hold from one request to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// What it is.
    pub name: &'static str,
    /// How it is kept from crossing an epoch.
    pub clearing: Clearing,
}

/// How a kind of state is kept from crossing an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clearing {
    /// The reset erases it, and the proof observes it.
    Reset(&'static str),
    /// It is switched off when the engine starts.
    DisabledAtStart(&'static str),
    /// The arguments or the answer that would bring it are refused.
    Refused(&'static str),
    /// It holds nothing that a request chose.
    Harmless(&'static str),
}

/// All state that an engine of this dialect holds. What is not listed here is cleared by restart only.
#[must_use]
pub const fn states(dialect: Dialect) -> &'static [State] {
    match dialect {
        Dialect::LlamaCpp => LLAMACPP,
        Dialect::Vllm => VLLM,
    }
}

/// Reads the engine's load.
pub(crate) async fn load(connector: &Connector, dialect: Dialect) -> Result<EngineLoad, EngineError> {
    match dialect {
        Dialect::LlamaCpp => llamacpp::load(connector).await,
        Dialect::Vllm => vllm::load(connector).await,
    }
}

/// Plants the prefix, and makes sure that the engine would show it if it were still there.
pub(crate) async fn plant(
    connector: &Connector,
    identity: &Identity,
    planted: &Planted,
    seen: &mut Observations,
) -> Result<(), ScrubFailure> {
    let mut cached = 0;
    // The first run plants, the second must find it.
    for _ in 0..2 {
        cached = match identity.dialect {
            Dialect::LlamaCpp => llamacpp::run_planted(connector, identity, planted).await?.0,
            Dialect::Vllm => vllm::run_planted(connector, identity, planted).await?,
        };
    }
    if cached == 0 {
        return Err(ScrubFailure::ProbeBlind);
    }
    seen.number("planted", cached);
    Ok(())
}

/// Empties the engine. The planted prefix must be in it, so that there is something to be seen going.
pub(crate) async fn reset(
    connector: &Connector,
    identity: &Identity,
    seen: &mut Observations,
) -> Result<(), ScrubFailure> {
    match identity.dialect {
        Dialect::LlamaCpp => {
            let (fewest, _) = llamacpp::erase(connector, identity).await?;
            if fewest == 0 {
                return Err(ScrubFailure::ResetUnconfirmed(
                    "a slot with the planted prefix had nothing to erase",
                ));
            }
            seen.number("erased", fewest);
            let (_, left) = llamacpp::erase(connector, identity).await?;
            if left != 0 {
                return Err(ScrubFailure::ResetUnconfirmed(
                    "a slot still held tokens after it was erased",
                ));
            }
            seen.number("left", left);
        }
        Dialect::Vllm => {
            vllm::reset(connector).await?;
            seen.text("reset", "success");
        }
    }
    Ok(())
}

/// Looks for the planted prefix, which puts it into the engine again.
pub(crate) async fn probe(
    connector: &Connector,
    identity: &Identity,
    planted: &Planted,
    seen: &mut Observations,
) -> Result<(), ScrubFailure> {
    let cached = match identity.dialect {
        Dialect::LlamaCpp => llamacpp::run_planted(connector, identity, planted).await?.1,
        Dialect::Vllm => vllm::run_planted(connector, identity, planted).await?,
    };
    if cached != 0 {
        return Err(ScrubFailure::ProbeHit(cached));
    }
    seen.number("probe", cached);
    Ok(())
}

/// The word for a dialect in digests and logs.
pub(crate) const fn name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::LlamaCpp => "llama.cpp",
        Dialect::Vllm => "vllm",
    }
}

const fn state(name: &'static str, clearing: Clearing) -> State {
    State { name, clearing }
}

const LLAMACPP: &[State] = &[
    state(
        "KV cache and prompt of each slot",
        Clearing::Reset("POST /slots/N?action=erase for every slot"),
    ),
    state(
        "prompt cache in host memory",
        Clearing::DisabledAtStart("cache_ram_mib 0"),
    ),
    state("saved idle slots", Clearing::DisabledAtStart("cache_idle_slots off")),
    state("context checkpoints", Clearing::DisabledAtStart("n_ctx_checkpoints 0")),
    state(
        "slots on disk",
        Clearing::Reset("save is never called; the directory is on tmpfs and observed empty"),
    ),
    state("grammar and sampler", Clearing::Harmless("made anew for each request")),
    state(
        "parameters of the last request in /slots",
        Clearing::Harmless("only the enclave reads /slots"),
    ),
    state(
        "multimodal encoder output",
        Clearing::Refused("a model with vision is scrubbed by restart only"),
    ),
    state("draft model", Clearing::DisabledAtStart("the launcher loads none")),
    state(
        "LoRA adapters",
        Clearing::DisabledAtStart("the launcher loads none, and /props listing any is refused"),
    ),
    state("response store", Clearing::Harmless("the server keeps none")),
];

const VLLM: &[State] = &[
    state(
        "prefix cache on the device",
        Clearing::Reset("POST /reset_prefix_cache with an explicit success"),
    ),
    state(
        "KV connectors and external tiers",
        Clearing::Refused("--kv-transfer-config and its kin"),
    ),
    state(
        "KV and weights offloaded to the host",
        Clearing::Refused("--cpu-offload-gb, --kv-offloading-size, --swap-space"),
    ),
    state(
        "multimodal processor cache",
        Clearing::DisabledAtStart("--mm-processor-cache-gb 0"),
    ),
    state(
        "encoder cache",
        Clearing::Refused("a model with vision is scrubbed by restart only"),
    ),
    state(
        "grammar cache",
        Clearing::Harmless("compiled grammars, keyed by the whole schema; only timing tells a hit"),
    ),
    state("draft model", Clearing::Refused("--speculative-config")),
    state(
        "LoRA adapters",
        Clearing::Refused("--enable-lora, and models with a parent"),
    ),
    state(
        "response store",
        Clearing::DisabledAtStart("off unless VLLM_ENABLE_RESPONSES_API_STORE, which is refused"),
    ),
    state("sleep levels", Clearing::Refused("--enable-sleep-mode")),
    state(
        "data-parallel ranks",
        Clearing::Refused("--data-parallel-size other than 1"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_lists_every_kind_of_state_of_the_design() {
        for dialect in [Dialect::LlamaCpp, Dialect::Vllm] {
            for kind in ["grammar", "draft", "LoRA", "response store", "encoder"] {
                assert!(
                    states(dialect).iter().any(|state| state.name.contains(kind)),
                    "{dialect:?}: {kind}"
                );
            }
        }
    }
}
