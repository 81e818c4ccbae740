//! A sealed answer, opened as a client does.

use bytes::Bytes;
use cloister_session::{
    inner::ResponseHead,
    limits::RESPONSE_PREFIX,
    opener::{Ended, Event, OpenError, ResponseOpener},
    receipt::Receipt,
    record::ErrorCode,
};
use cloister_transport::ResponseBody;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::{lying::Refusal, wait};

/// A response on its way.
pub struct Exchange {
    response: Response<ResponseBody>,
    opener: ResponseOpener,
    answer: Partial,
}

#[derive(Default)]
struct Partial {
    head: Option<ResponseHead>,
    body: Vec<u8>,
    error: Option<ErrorCode>,
}

/// A whole answer with its receipt.
#[derive(Debug)]
pub struct Answer {
    /// Status of the API; none if it failed before.
    pub status: Option<u16>,
    /// Body of the API.
    pub body: Vec<u8>,
    /// Why it failed.
    pub error: Option<ErrorCode>,
    /// The receipt, checked.
    pub receipt: Receipt,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none, or the answer failed.
    #[must_use]
    pub fn json(&self) -> Value {
        assert_eq!((self.status, self.error), (Some(200), None), "{}", self.text());
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Prompt tokens that the engine had cached, where the enclave shows them.
    #[must_use]
    pub fn cached_tokens(&self) -> u64 {
        let cached = self.json()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
        cached.expect("the enclave shows cached tokens")
    }
}

impl Exchange {
    /// Nothing of the body was read yet.
    #[must_use]
    pub fn new(response: Response<ResponseBody>, opener: ResponseOpener) -> Self {
        Self {
            response,
            opener,
            answer: Partial::default(),
        }
    }

    /// Whether the enclave opened the request.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.response.status() == StatusCode::OK
    }

    /// Reads until the first bytes of the body of the API: the engine works on it.
    pub async fn begun(mut self) -> Self {
        assert!(self.is_answered(), "refused: {:?}", self.response.headers());
        while self.answer.body.is_empty() {
            assert!(
                self.read().await.expect("an authentic answer"),
                "it ended before it began"
            );
        }
        self
    }

    /// All of the answer.
    ///
    /// # Panics
    /// When it was refused, is truncated or not authentic.
    pub async fn finish(self) -> Answer {
        assert!(self.is_answered(), "refused: {:?}", self.response.headers());
        self.ended().await.expect("an authentic answer")
    }

    /// All of the answer, or why it is none.
    ///
    /// # Errors
    /// See [`ResponseOpener`].
    pub async fn ended(mut self) -> Result<Answer, OpenError> {
        while self.read().await? {}
        let Ended { receipt, .. } = self.opener.finish()?;
        Ok(Answer {
            status: self.answer.head.map(|head| head.status),
            body: self.answer.body,
            error: self.answer.error,
            receipt,
        })
    }

    /// What was refused.
    pub async fn refusal(self) -> Refusal {
        crate::lying::refusal(self.response).await
    }

    /// Reads one frame; false at the end, however it came.
    async fn read(&mut self) -> Result<bool, OpenError> {
        let frame = wait::within("a piece of the answer", self.response.body_mut().frame()).await;
        let Some(Ok(frame)) = frame else {
            return Ok(false);
        };
        let bytes: Bytes = frame.into_data().unwrap_or_default();
        for event in self.opener.push(&bytes)? {
            match event {
                Event::Head(head) => self.answer.head = Some(head),
                Event::Data(data) => self.answer.body.extend_from_slice(&data),
                Event::Error(code) => self.answer.error = Some(code),
            }
        }
        Ok(true)
    }
}

/// Where the parts of a sealed answer end: its prefix, then each record but the last, which is the end.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn ends(m2: &[u8]) -> Vec<usize> {
    let mut ends = vec![RESPONSE_PREFIX];
    let mut at = RESPONSE_PREFIX;
    while let Some(first) = m2.get(at).filter(|first| **first != 0) {
        let (length, bytes) = match first >> 6 {
            0 => (usize::from(*first), 1),
            1 => (usize::from(u16::from_be_bytes([first & 0x3f, m2[at + 1]])), 2),
            _ => panic!("a chunk that is longer than a record"),
        };
        at += bytes + length;
        ends.push(at);
    }
    ends
}
