//! Ways to misbehave, so that tests can see what the enclave makes of them.

use serde::{Deserialize, Serialize};

/// Faults that are on. `POST /simulator/faults` replaces all of them; a field that is left out is off.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Faults {
    /// How `/reset_prefix_cache` misbehaves.
    pub reset: ResetFault,
    /// Every generation and embedding waits for ever.
    pub hang: bool,
    /// Factor on every latency; 1 or nothing is none.
    pub slow: Option<f64>,
    /// The connection of a generation breaks after that many tokens.
    pub die_after_tokens: Option<u32>,
    /// The process ends after that many tokens of a generation, where that is allowed.
    pub exit_after_tokens: Option<u32>,
    /// The metrics show a running request for ever.
    pub never_idle: bool,
    /// The metrics leave out what they are asked for.
    pub no_metrics: bool,
    /// The prefix cache ignores `cache_salt`.
    pub ignore_salt: bool,
    /// Usage never shows cached tokens.
    pub hide_cached_tokens: bool,
    /// `/v1/models` lists a LoRA adapter.
    pub lora: bool,
    /// Generations answer with an error whose text holds the prompt, as some engines do.
    pub echo_error: bool,
}

/// How a reset of the prefix cache misbehaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ResetFault {
    /// It does not.
    #[default]
    None,
    /// It answers 200 with an empty body, as old versions do even for a reset that failed.
    Empty,
    /// It answers `{"success": false}` and resets nothing.
    Refused,
    /// It answers `{"success": true}` and resets nothing.
    Leak,
    /// It never answers.
    Hang,
    /// It answers 404, as without `VLLM_SERVER_DEV_MODE`.
    Missing,
}
