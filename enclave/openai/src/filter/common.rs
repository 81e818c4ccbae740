//! What the kinds of answers share: identity, usage, completeness.

use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    FilterOptions, Summary,
    wire::{Bytes, NO_LOGPROB, TokenWire, UsageWire},
};
use crate::{
    ApiError, ErrorCode,
    secret::{Text, extend, write_json},
};

/// Longest identifier of an engine that is kept.
const MAX_ENGINE_ID: usize = 96;

/// Identity of an answer, fixed by its first chunk.
#[derive(Default)]
pub(super) struct Head {
    suffix: Option<String>,
    created: Option<u64>,
}

/// What was seen of the outputs.
pub(super) struct Progress {
    finished: Vec<bool>,
    /// Whether the engine said `[DONE]`, or the answer is unary.
    done: bool,
    usage: Option<Usage>,
}

/// The usage as it is counted.
#[derive(Clone, Copy, Default)]
pub(super) struct Usage {
    pub(super) prompt: u64,
    pub(super) completion: u64,
    pub(super) total: u64,
    pub(super) cached: Option<u64>,
    pub(super) reasoning: Option<u64>,
}

/// The usage as the client sees it.
#[derive(Serialize)]
pub(super) struct UsageOut {
    prompt_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens: Option<u64>,
    total_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: u64,
}

#[derive(Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
}

/// One token with its probability as the client sees it.
#[derive(Serialize)]
pub(super) struct TokenOut<'a> {
    pub(super) token: Text<'a>,
    pub(super) logprob: f64,
    pub(super) bytes: Option<Bytes<'a>>,
    pub(super) top_logprobs: Vec<TopOut<'a>>,
}

#[derive(Serialize)]
pub(super) struct TopOut<'a> {
    pub(super) token: Text<'a>,
    pub(super) logprob: f64,
    pub(super) bytes: Option<Bytes<'a>>,
}

/// Appends one event without a name.
pub(super) fn write_event(out: &mut Zeroizing<Vec<u8>>, value: &impl Serialize) -> Result<(), ApiError> {
    extend(out, b"data: ");
    write_json(out, value)?;
    extend(out, b"\n\n");
    Ok(())
}

/// Appends the end of a stream.
pub(super) fn write_done(out: &mut Zeroizing<Vec<u8>>) {
    extend(out, b"data: [DONE]\n\n");
}

/// An answer that breaks the format.
pub(super) fn broken() -> ApiError {
    ErrorCode::EngineError.into()
}

// === impl Head ===

impl Head {
    /// Takes the identity from a chunk; later chunks change nothing.
    pub(super) fn see(&mut self, id: Option<&str>, created: Option<u64>) {
        if self.suffix.is_none() {
            let id = id.unwrap_or_default();
            let id = id.split_once('-').map_or(id, |(_, suffix)| suffix);
            let plain = id.bytes().filter(u8::is_ascii_alphanumeric).take(MAX_ENGINE_ID);
            self.suffix = Some(plain.map(char::from).collect());
        }
        self.created = self.created.or(created);
    }

    /// The engine's identifier without its prefix, letters and digits only.
    pub(super) fn suffix(&self) -> &str {
        self.suffix.as_deref().unwrap_or_default()
    }

    /// Seconds since 1970 as the engine said.
    pub(super) fn created(&self) -> u64 {
        self.created.unwrap_or_default()
    }

    pub(super) fn id(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.suffix())
    }
}

// === impl Progress ===

impl Progress {
    pub(super) fn new(outputs: usize) -> Self {
        Self {
            finished: vec![false; outputs],
            done: false,
            usage: None,
        }
    }

    /// Checks that an output exists and has not ended yet, and marks its end.
    pub(super) fn output(&mut self, index: usize, ends: bool) -> Result<(), ApiError> {
        match self.finished.get_mut(index) {
            Some(finished) if !*finished => {
                *finished = ends;
                Ok(())
            }
            _ => Err(broken()),
        }
    }

    /// The engine's end.
    ///
    /// # Errors
    /// [`ErrorCode::EngineIncomplete`] when an output has not ended.
    pub(super) fn end(&mut self) -> Result<(), ApiError> {
        if self.finished.iter().all(|finished| *finished) {
            self.done = true;
            return Ok(());
        }
        Err(ErrorCode::EngineIncomplete.into())
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        self.usage
    }

    pub(super) fn usage_mut(&mut self) -> &mut Option<Usage> {
        &mut self.usage
    }

    pub(super) fn summary(&self) -> Summary {
        let usage = self.usage.unwrap_or_default();
        Summary {
            prompt_tokens: usage.prompt,
            completion_tokens: usage.completion,
            total_tokens: usage.total,
            finished: self.done,
        }
    }
}

// === impl Usage ===

impl Usage {
    /// The usage as the client sees it; embeddings have no completion tokens.
    pub(super) fn out(&self, options: FilterOptions, completion: bool) -> UsageOut {
        UsageOut {
            prompt_tokens: self.prompt,
            completion_tokens: completion.then_some(self.completion),
            total_tokens: self.total,
            prompt_tokens_details: self
                .cached
                .filter(|_| options.expose_cached_tokens)
                .map(|cached_tokens| PromptDetails { cached_tokens }),
            completion_tokens_details: self
                .reasoning
                .map(|reasoning_tokens| CompletionDetails { reasoning_tokens }),
        }
    }
}

impl From<UsageWire> for Usage {
    fn from(wire: UsageWire) -> Self {
        Self {
            prompt: wire.prompt_tokens,
            completion: wire.completion_tokens.unwrap_or_default(),
            total: wire.total_tokens,
            cached: wire.prompt_tokens_details.and_then(|details| details.cached_tokens),
            reasoning: wire
                .completion_tokens_details
                .and_then(|details| details.reasoning_tokens),
        }
    }
}

// === impl TokenOut ===

impl<'a> TokenOut<'a> {
    /// Cuts the alternatives to as many as the client asked for.
    pub(super) fn new(wire: TokenWire<'a>, top: u8) -> Self {
        let alternatives = wire.top_logprobs.into_iter().flatten().take(usize::from(top));
        Self {
            token: wire.token,
            logprob: wire.logprob.unwrap_or(NO_LOGPROB),
            bytes: wire.bytes,
            top_logprobs: alternatives
                .map(|wire| TopOut {
                    token: wire.token,
                    logprob: wire.logprob.unwrap_or(NO_LOGPROB),
                    bytes: wire.bytes,
                })
                .collect(),
        }
    }
}
