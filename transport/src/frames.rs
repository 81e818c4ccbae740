//! What both sides do with the frames of the bodies that they send.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame};

/// The next frame that is not empty data.
///
/// A body that is passed on from another stream has empty data where that one ended, and hyper would send it as a frame of
/// its own. h2 takes 100 of those on a connection, and then ends it with all that is under way.
pub(crate) fn poll_filled<B>(
    mut body: Pin<&mut B>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, B::Error>>>
where
    B: Body<Data = Bytes>,
{
    loop {
        let frame = ready!(body.as_mut().poll_frame(cx));
        let is_empty = matches!(&frame, Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty));
        if !is_empty {
            return Poll::Ready(frame);
        }
    }
}
