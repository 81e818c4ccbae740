//! A backend that plays a script, for tests of what is in front of it.

use crate::backend::{Answer, Attempt, Call, Piece, Readiness, Ready};
use crate::failure::{Code, Failure};
use crate::openai::Endpoint;
use async_trait::async_trait;
use bytes::Bytes;
use cloister_session::inner::InnerRequest;
use futures::StreamExt;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

pub(crate) enum Step {
    Fail(Failure),
    Answer {
        status: u16,
        content_type: &'static str,
        pieces: Vec<Result<Piece, Failure>>,
    },
    /// An answer whose pieces the test sends while it is read.
    Live(mpsc::Receiver<Result<Piece, Failure>>),
    /// Waits for the sender before it fails or answers.
    Wait(tokio::sync::oneshot::Receiver<()>, Box<Step>),
}

impl Step {
    pub(crate) fn answer(body: &'static str) -> Self {
        Self::Answer {
            status: 200,
            content_type: "application/json",
            pieces: vec![Ok(Piece::Data(Bytes::from_static(body.as_bytes()))), Ok(Piece::End)],
        }
    }

    pub(crate) fn cut(body: &'static str) -> Self {
        Self::Answer {
            status: 200,
            content_type: "application/json",
            pieces: vec![Ok(Piece::Data(Bytes::from_static(body.as_bytes())))],
        }
    }

    pub(crate) fn pieces(pieces: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self::Answer {
            status: 200,
            content_type: "application/json",
            pieces: pieces.into_iter().map(|piece| Ok(Piece::Data(piece.into()))).collect(),
        }
    }

    pub(crate) fn sse(events: &[&'static str], end: Result<Piece, Failure>) -> Self {
        let mut pieces: Vec<_> = events
            .iter()
            .map(|event| Ok(Piece::Data(Bytes::from_static(event.as_bytes()))))
            .collect();
        pieces.push(end);
        Self::Answer {
            status: 200,
            content_type: "text/event-stream",
            pieces,
        }
    }
}

#[derive(Default)]
pub(crate) struct Script {
    steps: Mutex<VecDeque<Step>>,
    calls: Mutex<Vec<Call>>,
}

impl Script {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: Mutex::new(steps.into_iter().collect()),
            calls: Mutex::default(),
        }
    }

    pub(crate) fn attempts(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    pub(crate) fn bodies(&self) -> Vec<Vec<u8>> {
        self.calls
            .lock()
            .unwrap()
            .iter()
            .map(|call| call.inner.body.to_vec())
            .collect()
    }
}

#[async_trait]
impl Attempt for Script {
    async fn attempt(&self, call: &Call) -> Result<Answer, Failure> {
        self.calls.lock().unwrap().push(call.clone());
        let mut step = self.steps.lock().unwrap().pop_front();
        if let Some(Step::Wait(until, then)) = step {
            let _ = until.await;
            step = Some(*then);
        }
        match step {
            Some(Step::Fail(failure)) => Err(failure),
            Some(Step::Answer {
                status,
                content_type,
                pieces,
            }) => Ok(Answer {
                status,
                content_type: content_type.into(),
                pieces: futures::stream::iter(pieces).boxed(),
            }),
            Some(Step::Live(receiver)) => Ok(Answer {
                status: 200,
                content_type: "text/event-stream".into(),
                pieces: tokio_stream::wrappers::ReceiverStream::new(receiver).boxed(),
            }),
            Some(Step::Wait(..)) | None => Err(Failure::new(Code::Internal, "the script is over")),
        }
    }
}

#[async_trait]
impl Ready for Script {
    async fn ready(&self) -> Result<Readiness, Failure> {
        if self.steps.lock().unwrap().is_empty() {
            return Err(Failure::retryable(Code::NoEnclave, "no enclave"));
        }
        Ok(Readiness {
            tee: "SIMULATED".into(),
        })
    }
}

pub(crate) fn call() -> Call {
    let body = Zeroizing::new(br#"{"model":"m"}"#.to_vec());
    Call {
        model: "m".into(),
        inner: Arc::new(InnerRequest {
            path: Endpoint::ChatCompletions,
            body,
        }),
    }
}
