//! One answer: from the engine's bytes to sealed records, inside the lease; then only ciphertext is left to deliver.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cloister_enclave_engine::{EngineCall, EngineError, EngineResponse};
use cloister_enclave_lease::Account;
use cloister_enclave_openai::{ApiError, EngineRequest, ResponseFilter, Summary};
use cloister_session::{
    enclave::OpenedRequest,
    inner::{ContentType, ResponseHead},
    receipt::{Outcome, Receipt, usage_bucket},
    record::ErrorCode,
    response::{ResponseSealer, SealError},
};
use futures::StreamExt;
use tokio::time::{Interval, MissedTickBehavior};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    enclave::Enclave,
    leases::{CallGuard, PermitGuard},
    outbox::{Cut, Inbox, Outbox},
};

/// Ciphertext of a stream that may wait for its reader.
const STREAM_BACKLOG: usize = 4 * 1024 * 1024;
/// Largest answer that is not streamed.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Ciphertext of one answer that may wait for its reader: the largest answer in the smallest records.
pub(crate) const ANSWER_BACKLOG: usize = 2 * MAX_ANSWER;
/// Ciphertext of all answers that may wait for their readers.
pub(crate) const TOTAL_BACKLOG: usize = 256 * 1024 * 1024;
/// Plaintext of a stream that may wait for its ticks before the engine is read no further.
const MAX_WAITING: usize = 256 * 1024;
/// A reader has this long for all that waits for it when its answer is complete.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

impl From<SealError> for Cut {
    fn from(_: SealError) -> Self {
        Self
    }
}

/// How the answer ended.
enum End {
    Complete(Summary),
    Error(ErrorCode),
}

/// An answer in the making. Everything secret in it is erased when it is dropped.
pub(crate) struct Answer {
    enclave: Arc<Enclave>,
    request: OpenedRequest,
    account: Account,
    sealer: ResponseSealer,
    outbox: Outbox,
    /// Sealed before there was anything to say: goes out with the first record.
    prefix: Option<Bytes>,
    /// Filtered bytes of the body, not sealed yet.
    waiting: Zeroizing<Vec<u8>>,
    head_sealed: bool,
    streaming: bool,
    paced: bool,
}

impl Answer {
    /// Starts an answer. Its first bytes go out with the first record.
    pub(crate) fn start(
        enclave: Arc<Enclave>,
        request: OpenedRequest,
        account: Account,
        outbox: Outbox,
    ) -> Result<Self, Cut> {
        let (sealer, prefix) = request.respond()?;
        Ok(Self {
            enclave,
            request,
            account,
            sealer,
            outbox,
            prefix: Some(prefix.into()),
            waiting: Zeroizing::new(Vec::new()),
            head_sealed: false,
            streaming: false,
            paced: false,
        })
    }

    /// An answer without the engine: a sealed error. `permit` is given back when all plaintext is erased.
    pub(crate) async fn fail(self, code: ErrorCode, permit: PermitGuard) -> Result<(), Cut> {
        let sealed = self.finish(&End::Error(code));
        drop(permit);
        sealed?.deliver(DELIVERY_TIMEOUT).await
    }

    /// An answer without the engine: what is wrong with the request, in the API's words. `permit` is given back when all
    /// plaintext is erased.
    pub(crate) async fn refuse(mut self, error: &ApiError, permit: PermitGuard) -> Result<(), Cut> {
        let sealed = self.explain(error).and_then(|end| self.finish(&end));
        drop(permit);
        sealed?.deliver(DELIVERY_TIMEOUT).await
    }

    /// Calls the engine and seals what it says. `call` is given up when nothing of the request is left in the engine and
    /// its plaintext is sealed or erased; what is delivered after that is ciphertext.
    pub(crate) async fn run(mut self, request: EngineRequest, call: CallGuard) -> Result<(), Cut> {
        let revoked = call.revoked().clone();
        let reader = self.outbox.reader();
        let end = tokio::select! {
            biased;
            () = revoked.cancelled() => Ok(End::Error(ErrorCode::Preempted)),
            () = reader.gone() => Err(Cut),
            end = self.converse(request) => end,
        };
        // The engine's connection is closed by now: its future was dropped with the branch.
        let sealed = end.and_then(|end| self.finish(&end));
        drop(call);
        sealed?.deliver(DELIVERY_TIMEOUT).await
    }

    async fn converse(&mut self, mut request: EngineRequest) -> Result<End, Cut> {
        let body = std::mem::take(&mut request.body);
        let response = match self
            .enclave
            .engine
            .call(EngineCall {
                path: request.path,
                body,
            })
            .await
        {
            Ok(response) => response,
            Err(error) => return Ok(End::Error(engine_error(&error))),
        };
        let filter = request.response_filter(response.status.as_u16(), self.enclave.filter);
        if filter.content_type() == ContentType::EventStream.as_str() {
            self.stream(response, filter).await
        } else {
            self.collect(response, filter).await
        }
    }

    /// An answer in one piece: nothing goes out before all of it is there.
    async fn collect(&mut self, mut response: EngineResponse, mut filter: ResponseFilter) -> Result<End, Cut> {
        while let Some(bytes) = response.body.next().await {
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) => return Ok(End::Error(engine_error(&error))),
            };
            if let Err(error) = filter.push(&bytes, &mut self.waiting) {
                return self.explain(&error);
            }
            if self.waiting.len() > MAX_ANSWER {
                return Ok(End::Error(ErrorCode::AnswerTooLarge));
            }
        }
        match filter.finish(&mut self.waiting) {
            // Some answers are only written anew when all of them is there.
            Ok(_) if self.waiting.len() > MAX_ANSWER => Ok(End::Error(ErrorCode::AnswerTooLarge)),
            Ok(summary) => {
                self.seal_head(200, ContentType::Json)?;
                Ok(End::Complete(summary))
            }
            Err(error) => self.explain(&error),
        }
    }

    /// A stream: with padding, one record at each tick; without, as the engine says it.
    async fn stream(&mut self, mut response: EngineResponse, mut filter: ResponseFilter) -> Result<End, Cut> {
        let padding = self.enclave.padding();
        self.streaming = true;
        let mut ticks: Option<Interval> = None;
        loop {
            tokio::select! {
                biased;
                () = next_tick(&mut ticks) => {
                    self.seal_tick()?;
                }
                bytes = response.body.next(), if self.waiting.len() < MAX_WAITING => {
                    let pushed = match bytes {
                        Some(Ok(bytes)) => filter.push(&bytes, &mut self.waiting),
                        Some(Err(error)) => return Ok(End::Error(engine_error(&error))),
                        None => return self.end_stream(&mut filter),
                    };
                    if let Err(error) = pushed {
                        return self.explain(&error);
                    }
                    if self.waiting.is_empty() {
                        continue;
                    }
                    if !self.head_sealed {
                        self.seal_head(200, ContentType::EventStream)?;
                        self.paced = padding.is_on();
                        ticks = padding.is_on().then(|| ticker(padding.tick_millis));
                    }
                    if !padding.is_on() {
                        self.seal_waiting()?;
                    }
                }
            }
        }
    }

    fn end_stream(&mut self, filter: &mut ResponseFilter) -> Result<End, Cut> {
        match filter.finish(&mut self.waiting) {
            Ok(summary) => {
                if !self.head_sealed {
                    self.seal_head(200, ContentType::EventStream)?;
                }
                Ok(End::Complete(summary))
            }
            Err(error) => self.explain(&error),
        }
    }

    /// Before any output an error is an answer of the API; after it, it is a failed stream.
    fn explain(&mut self, error: &ApiError) -> Result<End, Cut> {
        if self.head_sealed {
            return Ok(End::Error(ErrorCode::EngineFailed));
        }
        self.waiting.zeroize();
        self.seal_head(error.status(), ContentType::Json)?;
        self.waiting.extend_from_slice(&error.body());
        Ok(End::Complete(Summary::default()))
    }

    /// Queues a record, the first one behind the prefix.
    fn push(&mut self, record: Vec<u8>) -> Result<(), Cut> {
        let limit = if self.streaming { STREAM_BACKLOG } else { ANSWER_BACKLOG };
        if let Some(prefix) = self.prefix.take() {
            self.outbox.push(prefix, false, limit)?;
        }
        self.outbox.push(record.into(), self.paced, limit)
    }

    fn seal_head(&mut self, status: u16, content_type: ContentType) -> Result<(), Cut> {
        let head = self.sealer.head(&ResponseHead { status, content_type })?;
        self.push(head)?;
        self.head_sealed = true;
        Ok(())
    }

    /// What waits, as much as fits in a record; a dummy when nothing does.
    fn seal_tick(&mut self) -> Result<(), Cut> {
        let record = if self.waiting.is_empty() {
            self.sealer.dummy()?
        } else {
            let length = self.waiting.len().min(self.sealer.data_capacity());
            let record = self.sealer.data(self.waiting.get(..length).unwrap_or_default())?;
            erase_front(&mut self.waiting, length);
            record
        };
        self.push(record)?;
        Ok(())
    }

    fn seal_waiting(&mut self) -> Result<(), Cut> {
        let waiting = std::mem::take(&mut self.waiting);
        for piece in waiting.chunks(self.sealer.data_capacity()) {
            let record = self.sealer.data(piece)?;
            self.push(record)?;
        }
        Ok(())
    }

    /// Seals everything that is left, the receipt last, and erases every plaintext and key of the request.
    fn finish(mut self, end: &End) -> Result<Outbox, Cut> {
        if self.head_sealed {
            self.seal_waiting()?;
        }
        let (outcome, tokens) = match end {
            End::Complete(summary) => (Outcome::Complete, summary.total_tokens),
            End::Error(code) => {
                let record = self.sealer.error(*code)?;
                self.push(record)?;
                (Outcome::Error, 0)
            }
        };
        for _ in 0..self.sealer.missing_dummies() {
            let record = self.sealer.dummy()?;
            self.push(record)?;
        }
        let Self {
            enclave,
            request,
            account,
            sealer,
            outbox,
            paced,
            ..
        } = self;
        let end = sealer.end(|response_hash| {
            let facts = &enclave.facts;
            let receipt = Receipt {
                tee: facts.tee,
                request_id: request.request_id(),
                issued_at: enclave.clock.now(),
                enclave_id: facts.enclave_id,
                boot_id: facts.boot_id,
                epoch: account.epoch,
                key_id: request.key_id(),
                tenant_id: request.tenant(),
                model: facts.model,
                workload: facts.workload,
                gpu_checked_at: cloister_attestation::UnixTime(0),
                policy: request.policy(),
                distinct_tenants: account.distinct_tenants,
                scrub_proof: account.scrub_proof,
                sequence: account.sequence,
                usage_bucket: usage_bucket(tokens),
                request_hash: request.request_hash(),
                response_hash,
                outcome,
            };
            receipt.sign(&enclave.identity)
        })?;
        outbox.push(end.into(), paced, ANSWER_BACKLOG)?;
        Ok(outbox)
    }
}

/// Removes `length` bytes from the front, leaving no copy of them behind the end.
fn erase_front(buffer: &mut Zeroizing<Vec<u8>>, length: usize) {
    let length = length.min(buffer.len());
    let rest = buffer.len() - length;
    buffer.copy_within(length.., 0);
    if let Some(tail) = buffer.get_mut(rest..) {
        tail.zeroize();
    }
    buffer.truncate(rest);
}

fn ticker(millis: u16) -> Interval {
    let period = Duration::from_millis(u64::from(millis.max(1)));
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn next_tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

fn engine_error(error: &EngineError) -> ErrorCode {
    tracing::warn!(%error, "a call to the engine failed");
    match error {
        EngineError::Timeout { .. } => ErrorCode::EngineTimeout,
        _ => ErrorCode::EngineFailed,
    }
}

/// The response body: sealed bytes as they come, the paced ones one at a tick.
pub(crate) fn body(inbox: Inbox, tick_millis: u16) -> impl futures::Stream<Item = Result<Bytes, Cut>> + Send {
    let ticks = ticker(tick_millis);
    futures::stream::unfold(Some((inbox, ticks)), |state| async move {
        let (mut inbox, mut ticks) = state?;
        match inbox.next().await? {
            Ok((bytes, paced)) => {
                if paced {
                    ticks.tick().await;
                }
                Some((Ok(bytes), Some((inbox, ticks))))
            }
            Err(cut) => Some((Err(cut), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_erased_and_the_rest_kept() {
        let mut buffer = Zeroizing::new(b"abcdef".to_vec());
        erase_front(&mut buffer, 4);
        assert_eq!(buffer.as_slice(), b"ef");
        erase_front(&mut buffer, 9);
        assert!(buffer.is_empty());
    }
}
