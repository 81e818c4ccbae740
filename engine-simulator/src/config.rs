//! What a simulator is set to.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::faults::Faults;

/// What `/version` answers. No vLLM has this version.
pub const VERSION: &str = "0.0.0+cloister.simulated.1";

/// Latencies of a model on its hardware.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// Time to the first token of an empty prompt.
    pub overhead: Duration,
    /// Time per prompt token that is not in the prefix cache.
    pub per_prompt_token: Duration,
    /// Time between two tokens of a sequence that runs alone.
    pub inter_token: Duration,
    /// Sequences in a full batch; more wait.
    pub max_num_seqs: usize,
    /// By how much a full batch is slower than a single sequence; linear in between.
    pub load_factor: f64,
}

impl Profile {
    /// An 8B model on one H100 (published profile of the llm-d simulator).
    pub const H100_8B: Self = Self {
        overhead: Duration::from_millis(30),
        per_prompt_token: Duration::from_micros(250),
        inter_token: Duration::from_millis(12),
        max_num_seqs: 16,
        load_factor: 2.0,
    };

    /// A 70B model on eight H100 with tensor parallelism (published profile of the llm-d simulator).
    pub const H100_70B_TP8: Self = Self {
        overhead: Duration::from_millis(80),
        per_prompt_token: Duration::from_micros(500),
        inter_token: Duration::from_millis(25),
        max_num_seqs: 64,
        load_factor: 2.0,
    };

    /// No latency at all, for tests.
    pub const INSTANT: Self = Self {
        overhead: Duration::ZERO,
        per_prompt_token: Duration::ZERO,
        inter_token: Duration::ZERO,
        max_num_seqs: 64,
        load_factor: 1.0,
    };

    /// The factor on every latency while `running` sequences share the batch.
    pub(crate) fn slowdown(&self, running: usize) -> f64 {
        let others = running.saturating_sub(1) as f64;
        let most = self.max_num_seqs.saturating_sub(1).max(1) as f64;
        1.0 + (self.load_factor - 1.0) * (others / most).min(1.0)
    }
}

/// A profile that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown profile `{0}`; use 8b-h100, 70b-tp8 or instant")]
pub struct UnknownProfile(String);

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "8b-h100" => Ok(Self::H100_8B),
            "70b-tp8" => Ok(Self::H100_70B_TP8),
            "instant" => Ok(Self::INSTANT),
            _ => Err(UnknownProfile(name.to_owned())),
        }
    }
}

/// What a simulator is set to.
#[derive(Debug, Clone)]
pub struct SimulatorConfig {
    /// Latencies.
    pub profile: Profile,
    /// The only model name that is served.
    pub model: String,
    /// Length of every answer in tokens; without it, 16 to 127 by the prompt's hash.
    pub output_tokens: Option<u32>,
    /// Most tokens of prompt and answer together.
    pub max_model_len: u32,
    /// Tokens per block of the prefix cache.
    pub block_size: usize,
    /// Blocks of the KV cache, in use and cached.
    pub kv_blocks: usize,
    /// Length of an embedding, unless the request gives another.
    pub dimensions: usize,
    /// What `/version` answers.
    pub version: String,
    /// A file that gets one JSON line each time the batch changes.
    pub batch_log: Option<PathBuf>,
    /// Faults that are on from the start.
    pub faults: Faults,
    /// Whether the `exit` fault may end this process: only for the binary.
    pub may_exit: bool,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            profile: Profile::INSTANT,
            model: "simulated".to_owned(),
            output_tokens: None,
            max_model_len: 131_072,
            block_size: 16,
            kv_blocks: 16_384,
            dimensions: 64,
            version: VERSION.to_owned(),
            batch_log: None,
            faults: Faults::default(),
            may_exit: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_batch_is_slower_by_the_factor_and_a_single_sequence_is_not() {
        let profile = Profile::H100_8B;
        assert!((profile.slowdown(1) - 1.0).abs() < 1e-9);
        assert!((profile.slowdown(16) - 2.0).abs() < 1e-9);
        assert!(profile.slowdown(8) > profile.slowdown(7));
    }

    #[test]
    fn profiles_have_names() {
        assert_eq!("8b-h100".parse(), Ok(Profile::H100_8B));
        assert_eq!("70b-tp8".parse(), Ok(Profile::H100_70B_TP8));
        assert_eq!("instant".parse(), Ok(Profile::INSTANT));
        assert!("h100".parse::<Profile>().is_err());
    }
}
