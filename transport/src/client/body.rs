//! Bodies of a client's requests and responses, tied together: who drops the response ends the upload.
//!
//! hyper resets a stream when the response is dropped and the request's body is done, or when nobody waits for the
//! response any more. It goes on sending when the response is dropped in the middle of the upload.

use std::{
    error::Error as StdError,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::FutureExt;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use crate::frames;

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

/// A response's body. Dropping it resets the stream: the server's handler, or the body it answers with, is dropped.
///
/// An upload that is still under way ends as soon as it could send more. One that the server holds back by flow control,
/// after it has sent the response's headers, ends when the server reads on or finishes its response.
#[derive(Debug)]
pub struct ResponseBody {
    inner: Incoming,
    /// Ends the upload when it is dropped.
    _upload: oneshot::Sender<()>,
}

/// A request's body that fails when nobody holds the response, or waits for it, any more.
pub(super) struct RequestBody {
    inner: UnsyncBoxBody<Bytes, BoxError>,
    dropped: oneshot::Receiver<()>,
}

/// Ties a request's body; the sender belongs into the [`ResponseBody`].
pub(super) fn tie<B>(body: B) -> (RequestBody, oneshot::Sender<()>)
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (upload, dropped) = oneshot::channel();
    let inner = body.map_err(Into::into).boxed_unsync();
    (RequestBody { inner, dropped }, upload)
}

// === impl ResponseBody ===

impl ResponseBody {
    pub(super) fn new(inner: Incoming, upload: oneshot::Sender<()>) -> Self {
        ResponseBody { inner, _upload: upload }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

// === impl RequestBody ===

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.dropped.poll_unpin(cx).is_ready() {
            // hyper takes the reset's reason from the error.
            let cancelled = h2::Error::from(h2::Reason::CANCEL);
            return Poll::Ready(Some(Err(cancelled.into())));
        }
        frames::poll_filled(Pin::new(&mut self.inner), cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
