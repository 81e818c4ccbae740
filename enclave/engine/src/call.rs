//! One call to the engine.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use http::StatusCode;
use zeroize::Zeroizing;

use crate::error::EngineError;

/// A request as it goes to the engine: already checked and written anew by the enclave.
pub struct EngineCall {
    /// Path of the engine's API.
    pub path: &'static str,
    /// JSON body; erased after it was sent.
    pub body: Zeroizing<Vec<u8>>,
}

/// The head of the engine's answer, and its body as it comes.
pub struct EngineResponse {
    /// HTTP status.
    pub status: StatusCode,
    /// The content type, when there is one that is text.
    pub content_type: Option<String>,
    /// The body. Dropping it closes the connection, which ends the generation.
    pub body: EngineBody,
}

/// Body of an answer. The call is live until this is dropped.
pub struct EngineBody {
    stream: BoxStream<'static, Result<Bytes, EngineError>>,
}

impl EngineBody {
    pub(crate) fn new(stream: BoxStream<'static, Result<Bytes, EngineError>>) -> Self {
        Self { stream }
    }
}

impl Stream for EngineBody {
    type Item = Result<Bytes, EngineError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.as_mut().poll_next(cx)
    }
}
