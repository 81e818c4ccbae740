//! The body of a request: its outer part is read, the rest stays with the client until there is somewhere to send it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use cloister_session::{
    limits::{MAX_OUTER, MAX_REQUEST},
    outer::{Header, OuterRequest, Parsed},
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

/// Bytes of a request that are kept, so that another candidate can be tried. A larger one that fails has to be sent again.
pub const REPLAY_LIMIT: usize = 64 * 1024;
/// Time for the outer part to arrive.
const PREFIX_TIMEOUT: Duration = Duration::from_secs(10);
/// Most pieces in which the outer part may arrive: each is parsed from the start.
const MAX_PREFIX_PIECES: usize = 64;

/// The body cannot be a request, or did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRequest;

/// A request's body, to be sent to one candidate at a time.
#[derive(Debug)]
pub(crate) struct Upload(Arc<Mutex<Source>>);

#[derive(Debug)]
struct Source {
    /// What was taken from the client, while it is little enough.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    replayable: bool,
    total: usize,
    rest: Body,
    rest_ended: bool,
    /// Which attempt may read.
    attempt: u64,
    /// That attempt has all of the body.
    given: bool,
    broken: bool,
}

/// The body, for one candidate. A later attempt cuts it.
#[derive(Debug)]
pub(crate) struct Attempt {
    source: Arc<Mutex<Source>>,
    attempt: u64,
    /// Place in `kept`.
    next: usize,
}

/// Why the body of an attempt failed. Resets the stream to the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("the client broke off")]
    Broken,
    #[error("the body is longer than any request")]
    TooLong,
    #[error("another candidate is tried")]
    Superseded,
}

// === impl Upload ===

impl Upload {
    /// Reads the outer part, and no more than arrived with it.
    pub(crate) async fn begin(body: Body) -> Result<(Header, Self), NoRequest> {
        tokio::time::timeout(PREFIX_TIMEOUT, Self::read_outer(body))
            .await
            .map_err(|_| NoRequest)?
    }

    async fn read_outer(mut body: Body) -> Result<(Header, Self), NoRequest> {
        let mut received = BytesMut::new();
        for _ in 0..MAX_PREFIX_PIECES {
            let frame = body.frame().await.ok_or(NoRequest)?.map_err(|_| NoRequest)?;
            let Ok(data) = frame.into_data() else {
                return Err(NoRequest);
            };
            received.extend_from_slice(&data);
            match OuterRequest::parse(&received).map_err(|_| NoRequest)? {
                Parsed::Complete { outer, .. } => {
                    let upload = Self::new(received.freeze(), body);
                    return Ok((outer.header().clone(), upload));
                }
                Parsed::Incomplete if received.len() >= MAX_OUTER => return Err(NoRequest),
                Parsed::Incomplete => {}
            }
        }
        Err(NoRequest)
    }

    fn new(first: Bytes, rest: Body) -> Self {
        Self(Arc::new(Mutex::new(Source {
            kept_bytes: first.len(),
            total: first.len(),
            kept: vec![first],
            replayable: true,
            rest_ended: rest.is_end_stream(),
            rest,
            attempt: 0,
            given: false,
            broken: false,
        })))
    }

    /// The body from its start. Earlier attempts end. `None` when not all of it is there any more.
    pub(crate) fn attempt(&self) -> Option<Attempt> {
        let mut source = lock(&self.0);
        if !source.replayable {
            return None;
        }
        source.attempt = source.attempt.saturating_add(1);
        source.given = false;
        Some(Attempt {
            source: Arc::clone(&self.0),
            attempt: source.attempt,
            next: 0,
        })
    }

    /// Whether [`attempt`](Self::attempt) would give another body.
    pub(crate) fn is_replayable(&self) -> bool {
        lock(&self.0).replayable
    }

    /// Whether the last attempt was given all of the body. A candidate that has less cannot have run the request: the member's
    /// signature at the end covers it.
    pub(crate) fn is_complete(&self) -> bool {
        lock(&self.0).given
    }

    /// Whether the client, not the candidate, was the reason for a failure.
    pub(crate) fn is_broken(&self) -> bool {
        lock(&self.0).broken
    }

    /// The answer has begun: what was sent need not be kept.
    pub(crate) fn commit(self) {
        lock(&self.0).replayable = false;
    }
}

fn lock(source: &Mutex<Source>) -> MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Source ===

impl Source {
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadError>>> {
        loop {
            if self.rest_ended {
                return Poll::Ready(None);
            }
            let Some(frame) = ready!(Pin::new(&mut self.rest).poll_frame(cx)) else {
                self.rest_ended = true;
                return Poll::Ready(None);
            };
            let Ok(frame) = frame else {
                self.broken = true;
                return Poll::Ready(Some(Err(UploadError::Broken)));
            };
            // Trailers say nothing in this protocol.
            let Ok(data) = frame.into_data() else { continue };
            self.total = self.total.saturating_add(data.len());
            if self.total > MAX_REQUEST {
                self.broken = true;
                return Poll::Ready(Some(Err(UploadError::TooLong)));
            }
            // Known with the last piece already, where the client says so: the candidate can act on it from here on.
            self.rest_ended = self.rest.is_end_stream();
            return Poll::Ready(Some(Ok(data)));
        }
    }

    /// Keeps a piece if there is room for all that came so far.
    fn keep(&mut self, data: &Bytes) {
        self.kept_bytes = self.kept_bytes.saturating_add(data.len());
        if self.replayable && self.kept_bytes <= REPLAY_LIMIT {
            self.kept.push(data.clone());
        } else {
            self.replayable = false;
        }
    }
}

// === impl Attempt ===

impl HttpBody for Attempt {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = &mut *self;
        let mut source = lock(&this.source);
        if source.attempt != this.attempt {
            return Poll::Ready(Some(Err(UploadError::Superseded)));
        }
        if let Some(kept) = source.kept.get(this.next) {
            let kept = kept.clone();
            this.next = this.next.saturating_add(1);
            source.given = source.rest_ended && this.next >= source.kept.len();
            return Poll::Ready(Some(Ok(Frame::data(kept))));
        }
        if !source.replayable {
            // All that was kept is sent, and nobody will ask for it again.
            source.kept = Vec::new();
            this.next = 0;
        }
        let Some(data) = ready!(source.poll_rest(cx)) else {
            source.given = true;
            return Poll::Ready(None);
        };
        let data = data?;
        source.keep(&data);
        if source.replayable {
            this.next = source.kept.len();
        }
        source.given = source.rest_ended;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        let source = lock(&self.source);
        source.attempt == self.attempt && source.rest_ended && self.next >= source.kept.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests;
