//! Inner messages: Binary HTTP (RFC 9292), known-length, of exactly the shape that this protocol uses.
//!
//! The `bhttp` crate copies content into buffers that it does not erase, so the one shape that is allowed is written and
//! read here, on slices; the tests hold it against that crate.

use zeroize::Zeroizing;

use crate::{Malformed, outer::PaddingBucket, varint};

const WHAT: Malformed = Malformed("inner message");

/// Path of the OpenAI API that a request is for. The enclave decides what it means; anything else does not parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApiPath {
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
}

impl ApiPath {
    /// Every path.
    pub const ALL: [Self; 4] = [
        Self::ChatCompletions,
        Self::Responses,
        Self::Completions,
        Self::Embeddings,
    ];

    /// The path as in the URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
        }
    }

    /// The path with this URL.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|candidate| candidate.as_str() == path)
    }
}

/// An inner request: path and JSON body.
pub struct InnerRequest {
    /// Where to.
    pub path: ApiPath,
    /// The client's JSON, unparsed.
    pub body: Zeroizing<Vec<u8>>,
}

fn put(value: &[u8], out: &mut Vec<u8>) {
    varint::write(value.len(), out);
    out.extend_from_slice(value);
}

/// Everything before the length of the content.
fn request_head(path: ApiPath) -> Vec<u8> {
    let mut head = vec![0];
    put(b"POST", &mut head);
    put(b"https", &mut head);
    put(b"", &mut head);
    put(path.as_str().as_bytes(), &mut head);
    let mut fields = Vec::new();
    put(b"content-type", &mut fields);
    put(b"application/json", &mut fields);
    put(&fields, &mut head);
    head
}

impl InnerRequest {
    /// Encodes and pads with zeros to the smallest bucket.
    ///
    /// # Errors
    /// [`Malformed`] if it does not fit in the largest one (8 MiB).
    pub fn encode(&self) -> Result<(Zeroizing<Vec<u8>>, PaddingBucket), Malformed> {
        let head = request_head(self.path);
        // Content length of at most 4 bytes, content, empty trailer section.
        let bucket =
            PaddingBucket::for_length(head.len().saturating_add(self.body.len()).saturating_add(5)).ok_or(WHAT)?;
        // Reserved once: a buffer that grows would leave copies of the plaintext behind.
        let mut out = Zeroizing::new(Vec::with_capacity(bucket.size()));
        out.extend_from_slice(&head);
        put(&self.body, &mut out);
        out.push(0);
        out.resize(bucket.size(), 0);
        Ok((out, bucket))
    }

    /// Reads a padded message: path and where the body lies.
    ///
    /// # Errors
    /// [`Malformed`] for any other method, scheme, authority, path, header field, framing or trailer, for content that
    /// overruns the message, and for padding that is not zero.
    pub fn decode(padded: &[u8]) -> Result<(ApiPath, std::ops::Range<usize>), Malformed> {
        for path in ApiPath::ALL {
            let head = request_head(path);
            let Some(rest) = padded.strip_prefix(head.as_slice()) else {
                continue;
            };
            let (length, taken) = varint::read(rest)?.ok_or(WHAT)?;
            let start = head.len().saturating_add(taken);
            let end = start.checked_add(length).ok_or(WHAT)?;
            // The empty trailer section is a zero byte like the padding after it; there has to be one.
            let padding = padded.get(end..).filter(|padding| !padding.is_empty()).ok_or(WHAT)?;
            let zero = padding.iter().fold(0u8, |all, byte| all | byte) == 0;
            return if zero { Ok((path, start..end)) } else { Err(WHAT) };
        }
        Err(WHAT)
    }
}

/// Status and content type of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// Media type.
    pub content_type: ContentType,
}

/// Media types that an answer can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// One JSON document.
    Json,
    /// Server-sent events.
    EventStream,
}

impl ContentType {
    /// The value of the header field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::EventStream => "text/event-stream",
        }
    }
}

impl ResponseHead {
    /// Binary HTTP with no content.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![1];
        varint::write(usize::from(self.status), &mut out);
        let mut fields = Vec::new();
        put(b"content-type", &mut fields);
        put(self.content_type.as_str().as_bytes(), &mut fields);
        put(&fields, &mut out);
        out.extend_from_slice(&[0, 0]);
        out
    }

    /// Reads exactly what [`encode`](Self::encode) writes.
    ///
    /// # Errors
    /// [`Malformed`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let rest = bytes.strip_prefix(&[1]).ok_or(WHAT)?;
        let (status, _) = varint::read(rest)?.ok_or(WHAT)?;
        let status = u16::try_from(status)
            .ok()
            .filter(|status| (200..600).contains(status))
            .ok_or(WHAT)?;
        [ContentType::Json, ContentType::EventStream]
            .into_iter()
            .map(|content_type| Self { status, content_type })
            .find(|head| head.encode() == bytes)
            .ok_or(WHAT)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use bhttp::{Message, Mode};

    use super::*;

    fn request(body: &[u8]) -> InnerRequest {
        InnerRequest {
            path: ApiPath::ChatCompletions,
            body: Zeroizing::new(body.to_vec()),
        }
    }

    #[test]
    fn the_bhttp_crate_reads_our_request_and_we_read_its() {
        let (ours, _) = request(b"{\"a\":1}").encode().unwrap();
        let message = Message::read_bhttp(&mut Cursor::new(ours.as_slice())).unwrap();
        assert_eq!(message.control().method(), Some(b"POST".as_slice()));
        assert_eq!(message.control().path(), Some(b"/v1/chat/completions".as_slice()));
        assert_eq!(message.content(), b"{\"a\":1}");

        let mut theirs = Message::request(
            b"POST".to_vec(),
            b"https".to_vec(),
            Vec::new(),
            b"/v1/embeddings".to_vec(),
        );
        theirs.put_header("content-type", "application/json");
        theirs.write_content(b"{}");
        let mut bytes = Vec::new();
        theirs.write_bhttp(Mode::KnownLength, &mut bytes).unwrap();
        let (path, range) = InnerRequest::decode(&bytes).unwrap();
        assert_eq!((path, &bytes[range]), (ApiPath::Embeddings, b"{}".as_slice()));
    }

    #[test]
    fn the_bhttp_crate_reads_our_head() {
        for content_type in [ContentType::Json, ContentType::EventStream] {
            let head = ResponseHead {
                status: 429,
                content_type,
            };
            let message = Message::read_bhttp(&mut Cursor::new(head.encode())).unwrap();
            assert_eq!(message.control().status().map(u16::from), Some(429));
            assert_eq!(
                message.header().get(b"content-type"),
                Some(content_type.as_str().as_bytes())
            );
            assert_eq!(ResponseHead::decode(&head.encode()), Ok(head));
        }
    }

    #[test]
    fn other_shapes_of_request_are_refused() {
        let build =
            |method: &str, scheme: &str, authority: &str, path: &str, headers: &[(&str, &str)], trailer: bool| {
                let [method, scheme, authority, path] =
                    [method, scheme, authority, path].map(|s| s.as_bytes().to_vec());
                let mut message = Message::request(method, scheme, authority, path);
                headers
                    .iter()
                    .for_each(|(name, value)| message.put_header(*name, *value));
                message.write_content(b"{}");
                if trailer {
                    message.put_trailer("a", "b");
                }
                let mut bytes = Vec::new();
                message.write_bhttp(Mode::KnownLength, &mut bytes).unwrap();
                InnerRequest::decode(&bytes).is_err()
            };
        let json = [("content-type", "application/json")];
        assert!(!build("POST", "https", "", "/v1/responses", &json, false));
        assert!(build("GET", "https", "", "/v1/responses", &json, false));
        assert!(build("POST", "http", "", "/v1/responses", &json, false));
        assert!(build("POST", "https", "a", "/v1/responses", &json, false));
        assert!(build("POST", "https", "", "/v1/files", &json, false));
        assert!(build("POST", "https", "", "/v1/responses", &[], false));
        assert!(build(
            "POST",
            "https",
            "",
            "/v1/responses",
            &[json[0], ("x-a", "b")],
            false
        ));
        assert!(build(
            "POST",
            "https",
            "",
            "/v1/responses",
            &[("content-encoding", "gzip"), json[0]],
            false
        ));
        assert!(build("POST", "https", "", "/v1/responses", &json, true));
    }

    #[test]
    fn padding_is_zero_and_content_stays_inside() {
        let (mut padded, bucket) = request(b"{}").encode().unwrap();
        assert_eq!(padded.len(), bucket.size());
        let (_, range) = InnerRequest::decode(&padded).unwrap();
        assert!(
            InnerRequest::decode(&padded[..range.end]).is_err(),
            "no trailer section"
        );
        for at in [range.end, range.end + 1, padded.len() - 1] {
            padded[at] = 1;
            assert!(InnerRequest::decode(&padded).is_err(), "{at}");
            padded[at] = 0;
        }
        padded[range.start - 1] = 0x3f;
        assert!(InnerRequest::decode(&padded[..100]).is_err(), "content overruns");
    }

    #[test]
    fn heads_of_another_shape_are_refused() {
        let good = ResponseHead {
            status: 200,
            content_type: ContentType::Json,
        }
        .encode();
        assert!(ResponseHead::decode(&good).is_ok());
        assert!(ResponseHead::decode(&[good.as_slice(), &[0]].concat()).is_err());
        assert!(ResponseHead::decode(&good[..good.len() - 1]).is_err());
        assert!(
            ResponseHead::decode(
                &ResponseHead {
                    status: 199,
                    content_type: ContentType::Json
                }
                .encode()
            )
            .is_err()
        );
        assert!(
            ResponseHead::decode(
                &ResponseHead {
                    status: 600,
                    content_type: ContentType::Json
                }
                .encode()
            )
            .is_err()
        );
    }

    #[test]
    fn a_body_above_the_largest_bucket_is_refused() {
        assert!(request(&vec![b' '; crate::limits::MAX_BODY]).encode().is_err());
    }
}
