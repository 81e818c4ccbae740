//! From M2 as it arrives to pieces of an answer. Every byte that leaves here was authenticated.

use super::pool::{Candidate, Pool};
use super::trust::{Attested, Trust};
use super::upstream::SealedAnswer;
use crate::backend::{Answer, Piece};
use crate::failure::{Code, Failure};
use crate::receipts::ReceiptStore;
use crate::retry::truncated;
use bytes::Bytes;
use cloister_session::inner::ResponseHead;
use cloister_session::opener::{Ended, Event, OpenError, ResponseOpener};
use cloister_session::record::ErrorCode;
use futures::StreamExt;
use futures::stream;
use std::collections::VecDeque;
use std::sync::Arc;

/// What an answer may have consequences for.
pub(super) struct AnswerContext {
    pub(super) trust: Arc<Trust>,
    pub(super) pool: Arc<Pool>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) receipts: Option<Arc<ReceiptStore>>,
}

struct Opening {
    /// Consumed at the end.
    opener: Option<ResponseOpener>,
    records: SealedAnswer,
    events: VecDeque<Event>,
    context: AnswerContext,
}

/// Waits for the head.
pub(super) async fn open(
    opener: ResponseOpener,
    records: SealedAnswer,
    context: AnswerContext,
) -> Result<Answer, Failure> {
    let mut opening = Opening {
        opener: Some(opener),
        records,
        events: VecDeque::new(),
        context,
    };
    let head = opening.head().await?;
    let pieces = stream::unfold(Some(opening), |opening| async move {
        let mut opening = opening?;
        let piece = opening.piece().await;
        let ended = !matches!(piece, Ok(Piece::Data(_)));
        Some((piece, (!ended).then_some(opening)))
    });
    Ok(Answer {
        status: head.status,
        content_type: head.content_type.as_str().to_owned(),
        pieces: pieces.boxed(),
    })
}

// === impl Opening ===

impl Opening {
    async fn head(&mut self) -> Result<ResponseHead, Failure> {
        match self.event().await? {
            Some(Event::Head(head)) => Ok(head),
            Some(Event::Error(code)) => Err(self.failed(code)),
            Some(Event::Data(_)) => Err(not_authentic()),
            None => Err(truncated()),
        }
    }

    async fn piece(&mut self) -> Result<Piece, Failure> {
        match self.event().await? {
            // The owner wipes the bytes when the last reference to them goes.
            Some(Event::Data(data)) => Ok(Piece::Data(Bytes::from_owner(data))),
            Some(Event::Error(code)) => Err(self.failed(code)),
            Some(Event::Head(_)) => Err(not_authentic()),
            None => self.end().await,
        }
    }

    /// The next event; `None` at the end of the stream, which proves nothing yet.
    async fn event(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let Some(bytes) = self.records.next().await else {
                return Ok(None);
            };
            let opener = self.opener.as_mut().ok_or_else(truncated)?;
            self.events.extend(opener.push(&bytes?).map_err(|_| not_authentic())?);
        }
    }

    async fn end(&mut self) -> Result<Piece, Failure> {
        let opener = self.opener.take().ok_or_else(truncated)?;
        let ended = opener.finish().map_err(|error| match error {
            OpenError::Forged => truncated(),
            OpenError::Receipt(error) => Failure::new(
                Code::AnswerNotAuthentic,
                format!("the answer's receipt is refused: {error}"),
            ),
        })?;
        let candidate = self.answered_by(&ended).map(|candidate| candidate.attested.clone());
        if let (Some(store), Some(attested)) = (self.context.receipts.clone(), candidate) {
            save(store, ended, attested).await;
        }
        Ok(Piece::End)
    }

    fn answered_by(&self, ended: &Ended) -> Option<&Candidate> {
        self.context
            .candidates
            .iter()
            .find(|candidate| candidate.key.config().key_id == ended.key_id)
    }

    /// An error that the enclave sealed. One of them says that its state is another than the evidence showed.
    fn failed(&self, code: ErrorCode) -> Failure {
        if code == ErrorCode::Revoked {
            for candidate in &self.context.candidates {
                self.context.trust.forget(&candidate.key.config().enclave_id);
            }
            self.context.pool.invalidate();
        }
        sealed_failure(code)
    }
}

/// Keeps a receipt. The answer is good whether or not that works.
async fn save(store: Arc<ReceiptStore>, ended: Ended, attested: Arc<Attested>) {
    let saved = tokio::task::spawn_blocking(move || store.save(&ended, &attested)).await;
    if !matches!(saved, Ok(Ok(()))) {
        tracing::error!("a receipt could not be saved: check the receipts directory");
    }
}

/// The failure for each sealed error.
fn sealed_failure(code: ErrorCode) -> Failure {
    let reason = match code {
        ErrorCode::Preempted => Code::Interrupted,
        ErrorCode::EngineFailed => Code::EngineFailed,
        ErrorCode::EngineTimeout => Code::EngineTimeout,
        ErrorCode::Replayed => Code::EnclaveRefused,
        ErrorCode::QuotaExceeded => Code::RateLimitExceeded,
        ErrorCode::AnswerTooLarge => Code::AnswerTooLarge,
        ErrorCode::Revoked => Code::EnclaveUnavailable,
    };
    Failure {
        retryable: code.retryable() && !ran(code),
        may_have_run: code.retryable() && ran(code),
        ..Failure::new(reason, code.message())
    }
}

/// Whether the engine was left to work on the request as long as it wanted, so that the same may happen again.
fn ran(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::EngineFailed | ErrorCode::EngineTimeout)
}

fn not_authentic() -> Failure {
    Failure::new(
        Code::AnswerNotAuthentic,
        "the answer was not sealed by the chosen enclave for this request: something between has changed it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sealed_error_has_its_failure() {
        for code in ErrorCode::ALL {
            let failure = sealed_failure(code);
            assert_eq!(failure.retryable || failure.may_have_run, code.retryable());
            assert!(!(failure.retryable && failure.may_have_run));
            assert!(failure.code.status() >= 429, "{code:?} is nothing that the client did");
        }
        assert!(sealed_failure(ErrorCode::Preempted).retryable);
        assert!(sealed_failure(ErrorCode::EngineTimeout).may_have_run);
        assert!(sealed_failure(ErrorCode::EngineFailed).may_have_run);
    }
}
