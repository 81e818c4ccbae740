//! The little of OpenAI's API that the proxy itself has to understand: paths, errors, `model` and `stream` of a
//! request, and where an event stream ends. Everything else passes through as the bytes that it is.

mod done;
mod error;
mod peek;

pub use done::{DoneGate, MAX_EVENT_BYTES};
pub use error::{error_body, error_event, error_response};
pub use peek::{Peeked, peek};

use std::fmt;

/// An endpoint whose requests are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::ChatCompletions,
        Self::Responses,
        Self::Completions,
        Self::Embeddings,
    ];

    /// The path, the same outside and inside the seal.
    pub fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
        }
    }

    /// Name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Responses => "responses",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
        }
    }

    /// Whether `stream: true` means anything here.
    pub fn streams(self) -> bool {
        !matches!(self, Self::Embeddings)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())
    }
}
