//! Answers: from the engine's bytes to what the client sees.

mod chat;
mod common;
mod completions;
mod embeddings;
mod fault;
mod item;
mod piece;
mod response;
mod sse;
mod wire;

use std::sync::Arc;

use serde::Deserialize;
use zeroize::Zeroizing;

use self::{
    chat::ChatStream,
    common::Progress,
    completions::CompletionStream,
    piece::Reader,
    response::ResponseStream,
    sse::{Event, Sse},
    wire::{ChatWire, CompletionWire, EmbeddingsWire},
};
use crate::{
    ApiError, ErrorCode,
    limits::{MAX_ANSWER, MAX_ERROR},
    plan::{Answer, Plan},
    secret::extend,
};

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
///
/// Feed it with [`ResponseFilter::push`] and end it with [`ResponseFilter::finish`]. For an engine status other than 200 it takes the
/// body and yields the mapped error at the end, so that callers need no second path.
pub struct ResponseFilter {
    plan: Arc<Plan>,
    options: FilterOptions,
    state: State,
    summary: Summary,
}

enum State {
    /// The engine refused; its body is kept for classification.
    Refused { status: u16, body: Zeroizing<Vec<u8>> },
    /// A whole answer, parsed when it has ended.
    Unary(Zeroizing<Vec<u8>>),
    /// A stream of events.
    Stream(Box<(Sse, Stream)>),
    /// An error was reported, or the end.
    Over,
}

enum Stream {
    Chat(ChatStream),
    Response(ResponseStream),
    Completion(CompletionStream),
}

// === impl ResponseFilter ===

impl ResponseFilter {
    pub(crate) fn new(plan: Arc<Plan>, status: u16, options: FilterOptions) -> Self {
        let state = match Stream::new(&plan) {
            _ if status != 200 => State::Refused {
                status,
                body: Zeroizing::default(),
            },
            Some(stream) => State::Stream(Box::new((Sse::default(), stream))),
            None => State::Unary(Zeroizing::default()),
        };
        Self {
            plan,
            options,
            state,
            summary: Summary::default(),
        }
    }

    /// The content type of what comes out: `text/event-stream` or `application/json`.
    #[must_use]
    pub fn content_type(&self) -> &'static str {
        if self.plan.stream {
            "text/event-stream"
        } else {
            "application/json"
        }
    }

    /// Takes bytes of the engine, cut anywhere, and appends to `out` what the client may see of them; often nothing.
    ///
    /// # Errors
    /// The answer cannot be given: the engine reported an error or broke the format. What `out` got before stays; nothing more comes.
    pub fn push(&mut self, bytes: &[u8], out: &mut Zeroizing<Vec<u8>>) -> Result<(), ApiError> {
        let result = self.take(bytes, out);
        if result.is_err() {
            self.state = State::Over;
        }
        result
    }

    /// The engine's body has ended. Appends the rest to `out`.
    ///
    /// # Errors
    /// [`ErrorCode::EngineIncomplete`] when the answer is not whole, otherwise as [`ResponseFilter::push`].
    pub fn finish(&mut self, out: &mut Zeroizing<Vec<u8>>) -> Result<Summary, ApiError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Refused { status, body } => return Err(fault::from_status(status, &body)),
            State::Unary(body) => self.summary = unary(&self.plan, self.options, &body, out)?,
            State::Stream(_) | State::Over => {}
        }
        if self.summary.finished {
            Ok(self.summary)
        } else {
            Err(ErrorCode::EngineIncomplete.into())
        }
    }

    /// What is known so far; also after an error.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.summary
    }

    fn take(&mut self, bytes: &[u8], out: &mut Zeroizing<Vec<u8>>) -> Result<(), ApiError> {
        let Self {
            plan,
            options,
            state,
            summary,
        } = self;
        match state {
            State::Refused { body, .. } => {
                let room = MAX_ERROR.saturating_sub(body.len());
                extend(body, bytes.get(..room).unwrap_or(bytes));
                Ok(())
            }
            State::Unary(body) => {
                if body.len().saturating_add(bytes.len()) > MAX_ANSWER {
                    return Err(ErrorCode::EngineError.into());
                }
                extend(body, bytes);
                Ok(())
            }
            State::Stream(both) => {
                let (sse, stream) = &mut **both;
                sse.push(bytes, |event| {
                    let result = stream.event(event, plan, *options, out);
                    *summary = stream.progress().summary();
                    result
                })
            }
            State::Over => Err(ErrorCode::EngineError.into()),
        }
    }
}

// === impl Stream ===

impl Stream {
    /// The reader for a streamed answer; none for a unary one.
    fn new(plan: &Plan) -> Option<Self> {
        if !plan.stream {
            return None;
        }
        match &plan.answer {
            Answer::Chat(chat) => Some(Stream::Chat(ChatStream::new(chat))),
            Answer::Response(chat, _) => Some(Stream::Response(ResponseStream::new(plan, chat))),
            Answer::Completion(completion) => Some(Stream::Completion(CompletionStream::new(completion))),
            Answer::Embedding(_) => None,
        }
    }

    fn progress(&self) -> &Progress {
        match self {
            Stream::Chat(stream) => &stream.reader.progress,
            Stream::Response(stream) => &stream.reader.progress,
            Stream::Completion(stream) => &stream.progress,
        }
    }

    fn event(
        &mut self,
        event: Event<'_>,
        plan: &Plan,
        options: FilterOptions,
        out: &mut Zeroizing<Vec<u8>>,
    ) -> Result<(), ApiError> {
        match event.data {
            // llama.cpp begins a stream of several completions with this.
            b"null" if !event.error => Ok(()),
            _ if self.progress().is_done() => Err(ErrorCode::EngineError.into()),
            b"[DONE]" => self.done(plan, options, out),
            data if event.error => Err(fault::from_event(data, true).unwrap_or(ErrorCode::EngineError.into())),
            data => self.chunk(data, plan, out),
        }
    }

    fn chunk(&mut self, data: &[u8], plan: &Plan, out: &mut Zeroizing<Vec<u8>>) -> Result<(), ApiError> {
        match (self, &plan.answer) {
            (Stream::Chat(stream), Answer::Chat(chat)) => stream.chunk(
                parse(data, |wire: &ChatWire<'_>| wire.choices.is_some())?,
                plan,
                chat,
                out,
            ),
            (Stream::Response(stream), Answer::Response(chat, response)) => stream.chunk(
                parse(data, |wire: &ChatWire<'_>| wire.choices.is_some())?,
                plan,
                chat,
                response,
                out,
            ),
            (Stream::Completion(stream), Answer::Completion(completion)) => stream.chunk(
                parse(data, |wire: &CompletionWire<'_>| wire.choices.is_some())?,
                plan,
                completion,
                out,
            ),
            _ => Err(ErrorCode::EngineError.into()),
        }
    }

    fn done(&mut self, plan: &Plan, options: FilterOptions, out: &mut Zeroizing<Vec<u8>>) -> Result<(), ApiError> {
        match (self, &plan.answer) {
            (Stream::Chat(stream), _) => stream.done(plan, options, out),
            (Stream::Response(stream), Answer::Response(_, response)) => stream.done(plan, response, options, out),
            (Stream::Completion(stream), _) => stream.done(plan, options, out),
            (Stream::Response(_), _) => Err(ErrorCode::EngineError.into()),
        }
    }
}

/// A whole answer.
fn unary(plan: &Plan, options: FilterOptions, body: &[u8], out: &mut Zeroizing<Vec<u8>>) -> Result<Summary, ApiError> {
    match &plan.answer {
        Answer::Chat(chat) => {
            let wire = parse(body, |wire: &ChatWire<'_>| wire.choices.is_some())?;
            let mut reader = Reader::new(chat);
            chat::unary(&mut reader, wire, plan, chat, options, out)?;
            Ok(reader.progress.summary())
        }
        Answer::Response(chat, response) => {
            let wire = parse(body, |wire: &ChatWire<'_>| wire.choices.is_some())?;
            let mut stream = ResponseStream::new(plan, chat);
            stream.chunk(wire, plan, chat, response, out)?;
            stream.done(plan, response, options, out)?;
            Ok(stream.reader.progress.summary())
        }
        Answer::Completion(completion) => {
            let wire = parse(body, |wire: &CompletionWire<'_>| wire.choices.is_some())?;
            let mut stream = CompletionStream::new(completion);
            stream.unary(wire, plan, completion, options, out)?;
            Ok(stream.progress.summary())
        }
        Answer::Embedding(embedding) => {
            let wire = parse(body, |_: &EmbeddingsWire<'_>| true)?;
            embeddings::unary(wire, plan, embedding, options, out)
        }
    }
}

/// Parses what the engine sent once; only what is not an answer is looked at again, as an error.
fn parse<'a, T: Deserialize<'a>>(data: &'a [u8], is_answer: impl FnOnce(&T) -> bool) -> Result<T, ApiError> {
    match serde_json::from_slice::<T>(data) {
        Ok(wire) if is_answer(&wire) => Ok(wire),
        _ => Err(fault::from_event(data, false).unwrap_or(ErrorCode::EngineError.into())),
    }
}
