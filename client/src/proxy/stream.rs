//! The body of a streamed answer.

use super::metrics::{Observed, Outcome};
use crate::backend::{Answer, Piece};
use crate::failure::Failure;
use crate::openai::{DoneGate, Endpoint, error_event};
use crate::retry::{self, Complete};
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use std::io;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// While a stream waits for its head, the client gets a comment this often, so that no one takes the silence for a failure.
pub const QUEUED_COMMENT_EVERY: Duration = Duration::from_secs(10);

const QUEUED: &[u8] = b": queued\n\n";

pub(super) type Head = BoxFuture<'static, Result<Answer, Failure>>;

/// A stream being passed to a client. Dropping it drops the request upstream.
pub(super) struct Relay {
    endpoint: Endpoint,
    state: State,
    observed: Observed,
    _permit: OwnedSemaphorePermit,
}

enum State {
    /// No head yet; the status has been decided by the clock.
    Waiting {
        head: Head,
        comments: Interval,
    },
    /// The head came after the status, and is not a stream.
    Collecting(Answer),
    Streaming {
        pieces: BoxStream<'static, Result<Piece, Failure>>,
        gate: DoneGate,
    },
    /// The error event is out; what follows is the end of the connection.
    Aborting,
    Ended,
}

impl Relay {
    /// For an answer whose head is there.
    pub(super) fn streaming(
        endpoint: Endpoint,
        answer: Answer,
        observed: Observed,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            endpoint,
            state: streaming(answer),
            observed,
            _permit: permit,
        }
    }

    /// For an answer that still waits. The first comment goes out at once.
    pub(super) fn waiting(endpoint: Endpoint, head: Head, observed: Observed, permit: OwnedSemaphorePermit) -> Self {
        let mut comments = interval_at(Instant::now(), QUEUED_COMMENT_EVERY);
        comments.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            endpoint,
            state: State::Waiting { head, comments },
            observed,
            _permit: permit,
        }
    }

    pub(super) fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, |mut relay| async move {
            let item = relay.next().await?;
            Some((item, relay))
        }))
    }

    /// The next bytes for the client, or an error, which makes the server cut the connection.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let state = std::mem::replace(&mut self.state, State::Ended);
            let bytes = match state {
                State::Waiting { head, comments } => self.wait(head, comments).await,
                State::Collecting(answer) => self.collect(answer).await,
                State::Streaming { pieces, gate } => self.relay(pieces, gate).await,
                State::Aborting => {
                    // The server flushes what it has when the body is not ready, and not when it fails: let the event out first.
                    tokio::task::yield_now().await;
                    return Some(Err(io::Error::other("the answer was cut off")));
                }
                State::Ended => return None,
            };
            if !bytes.is_empty() {
                return Some(Ok(bytes));
            }
        }
    }

    async fn wait(&mut self, mut head: Head, mut comments: Interval) -> Bytes {
        tokio::select! {
            biased;
            answer = &mut head => match answer {
                Ok(answer) => {
                    self.observed.head();
                    self.state = if is_event_stream(&answer) {
                        streaming(answer)
                    } else {
                        State::Collecting(answer)
                    };
                    Bytes::new()
                }
                Err(failure) => self.fail(&failure),
            },
            _ = comments.tick() => {
                self.state = State::Waiting { head, comments };
                Bytes::from_static(QUEUED)
            }
        }
    }

    /// An error of the enclave's API check that came after the status: its body is an error object already.
    async fn collect(&mut self, answer: Answer) -> Bytes {
        match retry::collect(answer).await {
            Ok(Complete { status, body, .. }) => {
                self.observed.outcome(Outcome::of_status(status));
                let one_line: Vec<u8> = body
                    .iter()
                    .map(|byte| if *byte == b'\n' { b' ' } else { *byte })
                    .collect();
                Bytes::from([&b"data: "[..], &one_line, b"\n\n"].concat())
            }
            Err(failure) => self.fail(&failure),
        }
    }

    async fn relay(&mut self, mut pieces: BoxStream<'static, Result<Piece, Failure>>, mut gate: DoneGate) -> Bytes {
        let passed = match pieces.next().await {
            Some(Ok(Piece::Data(data))) => gate.push(&data),
            Some(Ok(Piece::End)) => {
                self.observed.outcome(Outcome::Answered);
                return gate.release();
            }
            Some(Err(failure)) => Err(failure),
            None => Err(retry::truncated()),
        };
        match passed {
            Ok(bytes) => {
                self.state = State::Streaming { pieces, gate };
                bytes
            }
            Err(failure) => {
                self.state = State::Aborting;
                self.error(&failure)
            }
        }
    }

    /// Ends an answer of which nothing but comments went out: the error event is all of it, and the stream ends properly.
    fn fail(&mut self, failure: &Failure) -> Bytes {
        self.state = State::Ended;
        self.error(failure)
    }

    fn error(&mut self, failure: &Failure) -> Bytes {
        self.observed.outcome(Outcome::Failed(failure.code));
        tracing::info!(code = failure.code.as_str(), "stream failed");
        error_event(self.endpoint, failure)
    }
}

fn streaming(answer: Answer) -> State {
    State::Streaming {
        pieces: answer.pieces,
        gate: DoneGate::default(),
    }
}

/// Whether an answer is a stream of events that may be passed on before its end.
pub(super) fn is_event_stream(answer: &Answer) -> bool {
    answer.status == 200 && media_type(&answer.content_type) == "text/event-stream"
}

/// The media type without parameters.
pub(super) fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}
