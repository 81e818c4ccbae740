//! One attempt at one candidate, and the answer on its way back.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use cloister_session::{REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE};
use cloister_transport::ResponseBody;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::{dispatcher::Place, enclaves::Enclave, refusal::RETRYABLE_HEADER, upload::Attempt};

/// Path of the data plane, the same at the scheduler and at an enclave.
pub(crate) const REQUESTS_PATH: &str = "/cloister/v1/requests";

/// What became of an attempt.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The answer has begun.
    Answered(ResponseBody),
    /// The enclave refused.
    Refused { retryable: bool },
    /// The enclave provably never saw the request.
    NotTaken,
    /// It broke off, failed, or was silent for too long: if it had the whole request, it may have run it.
    Failed,
    /// It answered with something that is no sealed answer: not passed on, and not tried elsewhere.
    Improper,
}

/// Sends the request and waits for the answer to begin. Dropping the future cancels the request.
pub(crate) async fn forward(enclave: &Enclave, body: Attempt, first_byte: Duration) -> Outcome {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(REQUESTS_PATH);
    let media_type = HeaderValue::from_static(REQUEST_MEDIA_TYPE);
    request.headers_mut().insert(header::CONTENT_TYPE, media_type);
    match timeout(first_byte, enclave.data.send(request)).await {
        Ok(Ok(response)) => judge(response),
        Ok(Err(error)) => {
            tracing::debug!(enclave = enclave.authority(), %error, "an attempt failed");
            if error.is_unprocessed() {
                Outcome::NotTaken
            } else {
                Outcome::Failed
            }
        }
        Err(_) => {
            tracing::warn!(
                enclave = enclave.authority(),
                "the enclave did not begin an answer in time"
            );
            Outcome::Failed
        }
    }
}

fn judge(response: Response<ResponseBody>) -> Outcome {
    match response.status() {
        StatusCode::OK if has_type(response.headers(), RESPONSE_MEDIA_TYPE) && !is_encoded(response.headers()) => {
            Outcome::Answered(response.into_body())
        }
        StatusCode::FORBIDDEN => {
            let flag = response.headers().get(RETRYABLE_HEADER);
            let retryable = flag.is_some_and(|flag| flag == "true");
            Outcome::Refused { retryable }
        }
        status if status.is_server_error() => Outcome::Failed,
        _ => Outcome::Improper,
    }
}

/// Exactly this media type, without parameters.
pub(crate) fn has_type(headers: &HeaderMap, media_type: &str) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (first, more) = (values.next(), values.next());
    more.is_none() && first.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(media_type.as_bytes()))
}

/// Compression of what is sealed would only tell of its content.
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CONTENT_ENCODING)
}

/// The sealed answer, unchanged. Holds the request's place in flight until it ends or the client is gone.
#[derive(Debug)]
pub(crate) struct Answer {
    body: ResponseBody,
    place: Option<Place>,
    idle: Duration,
    deadline: Pin<Box<Sleep>>,
}

/// Cuts the stream: the client sees no end record, and so no success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("the enclave broke off")]
    Broken(#[source] <ResponseBody as Body>::Error),
    #[error("the enclave was silent for too long")]
    Idle,
}

// === impl Answer ===

impl Answer {
    pub(crate) fn new(body: ResponseBody, place: Place, idle: Duration) -> Self {
        Self {
            body,
            place: Some(place),
            idle,
            deadline: Box::pin(sleep(idle)),
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, AnswerError>>> {
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(self.deadline.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(AnswerError::Idle)));
                }
            };
            let next = Instant::now().checked_add(self.idle);
            self.deadline.as_mut().reset(next.unwrap_or_else(Instant::now));
            return Poll::Ready(match frame {
                None => None,
                Some(Err(error)) => Some(Err(AnswerError::Broken(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(Ok(data)),
                    // Trailers say nothing in this protocol.
                    Err(_) => continue,
                },
            });
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let this = &mut *self;
        let data = ready!(this.poll_data(cx));
        if !matches!(data, Some(Ok(_))) {
            // The enclave is done with it, however slowly the client reads what is left.
            this.place = None;
        }
        Poll::Ready(data.map(|data| data.map(Frame::data)))
    }
}
