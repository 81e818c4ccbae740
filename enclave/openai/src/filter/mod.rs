//! Answers: from the engine's bytes to what the client sees.

use zeroize::Zeroizing;

use crate::{ApiError, ErrorCode};

/// What the enclave's configuration decides about answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterOptions {
    /// Whether `cached_tokens` stays in the usage. It tells what was asked before, so the default is no.
    pub expose_cached_tokens: bool,
}

/// What an answer used and whether it is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Tokens of the prompt as the engine counted them.
    pub prompt_tokens: u64,
    /// Tokens of all answers as the engine counted them.
    pub completion_tokens: u64,
    /// The sum as the engine gave it.
    pub total_tokens: u64,
    /// Whether every answer was seen to its end.
    pub finished: bool,
}

/// Turns one answer of the engine into what the client sees.
pub struct ResponseFilter {
    summary: Summary,
}

impl ResponseFilter {
    pub(crate) fn refuse_all(_status: u16, _options: FilterOptions) -> Self {
        Self {
            summary: Summary::default(),
        }
    }

    /// The content type of what comes out: `text/event-stream` or `application/json`.
    #[must_use]
    pub fn content_type(&self) -> &'static str {
        "application/json"
    }

    /// Takes bytes of the engine, cut anywhere, and appends to `out` what the client may see of them; often nothing.
    ///
    /// # Errors
    /// The answer cannot be given: the engine reported an error or broke the format. The filter takes nothing more after that.
    pub fn push(&mut self, bytes: &[u8], out: &mut Zeroizing<Vec<u8>>) -> Result<(), ApiError> {
        let _ = (bytes, out);
        Err(ErrorCode::EngineError.into())
    }

    /// The engine's body has ended. Appends the rest to `out`.
    ///
    /// # Errors
    /// [`ErrorCode::EngineIncomplete`] when the answer is not whole, otherwise as [`ResponseFilter::push`].
    pub fn finish(&mut self, out: &mut Zeroizing<Vec<u8>>) -> Result<Summary, ApiError> {
        let _ = out;
        Err(ErrorCode::EngineIncomplete.into())
    }

    /// What is known so far; also after an error.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.summary
    }
}
