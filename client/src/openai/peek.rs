//! Reads `model` and `stream` out of a request, and nothing else: what is sealed is the client's own bytes.

use crate::failure::{Code, Failure};
use crate::openai::{Endpoint, streams};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// Longest model name in a request, bytes. The key configuration's own limit is 128.
pub const MAX_MODEL_NAME_BYTES: usize = 256;

/// What the proxy has to know of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// The model that the client asks for.
    pub model: String,
    /// Whether it wants a stream.
    pub stream: bool,
}

/// Parses the body of a request.
///
/// # Errors
///
/// The body is not one JSON object, repeats one of its own top-level keys that matter here, has no `model`, or asks for
/// something that needs state in the enclave: `store: true` or a `previous_response_id`. Messages say where, never what.
pub fn peek(endpoint: Endpoint, body: &[u8]) -> Result<Peeked, Failure> {
    let fields: Fields = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    if fields.store == Some(true) {
        return Err(Failure::new(
            Code::UnsupportedParameter,
            "store: true is refused: nothing of a request is kept after its answer. Leave it out or set it to false.",
        )
        .with_param("store"));
    }
    if fields.previous_response {
        return Err(Failure::new(
            Code::UnsupportedParameter,
            "previous_response_id is refused: nothing of a request is kept after its answer. Send the whole conversation.",
        )
        .with_param("previous_response_id"));
    }
    let model = fields
        .model
        .ok_or_else(|| Failure::new(Code::InvalidRequest, "the request names no model").with_param("model"))?;
    if model.is_empty() || model.len() > MAX_MODEL_NAME_BYTES {
        return Err(Failure::new(Code::InvalidRequest, "the model name is empty or too long").with_param("model"));
    }
    let stream = fields.stream.unwrap_or(false);
    if stream && !streams(endpoint) {
        return Err(Failure::new(Code::InvalidRequest, "this endpoint does not stream").with_param("stream"));
    }
    Ok(Peeked { model, stream })
}

/// serde_json's own messages may quote a value, so only the position is taken over; ours are told by their category.
fn malformed(error: &serde_json::Error) -> Failure {
    if error.classify() != serde_json::error::Category::Data {
        return Failure::new(
            Code::InvalidRequest,
            format!(
                "the body is not valid JSON (line {}, column {})",
                error.line(),
                error.column()
            ),
        );
    }
    Failure::new(
        Code::InvalidRequest,
        format!(
            "the body must be one JSON object with a text \"model\" and a boolean \"stream\", each at most once \
             (line {}, column {})",
            error.line(),
            error.column()
        ),
    )
}

#[derive(Default)]
struct Fields {
    model: Option<String>,
    stream: Option<bool>,
    store: Option<bool>,
    previous_response: bool,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        // A repeated key means that two readers may see two requests, so each may come once.
        let mut seen = [false; 4];
        while let Some(key) = map.next_key::<Key>()? {
            let slot = match key {
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                Key::Model => &mut seen[0],
                Key::Stream => &mut seen[1],
                Key::Store => &mut seen[2],
                Key::PreviousResponseId => &mut seen[3],
            };
            if std::mem::replace(slot, true) {
                return Err(A::Error::custom("repeated key"));
            }
            match key {
                Key::Model => fields.model = Some(map.next_value()?),
                Key::Stream => fields.stream = map.next_value()?,
                Key::Store => fields.store = map.next_value()?,
                Key::PreviousResponseId => {
                    fields.previous_response = map.next_value::<Option<IgnoredAny>>()?.is_some();
                }
                Key::Other => {}
            }
        }
        Ok(fields)
    }
}

#[derive(Clone, Copy)]
enum Key {
    Model,
    Stream,
    Store,
    PreviousResponseId,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                Ok(match key {
                    "model" => Key::Model,
                    "stream" => Key::Stream,
                    "store" => Key::Store,
                    "previous_response_id" => Key::PreviousResponseId,
                    _ => Key::Other,
                })
            }
        }
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: &str) -> Result<Peeked, Failure> {
        peek(Endpoint::ChatCompletions, body.as_bytes())
    }

    #[test]
    fn reads_model_and_stream() {
        let peeked = chat(r#"{"messages":[{"role":"user","content":"x"}],"model":"m","stream":true}"#);
        assert_eq!(
            peeked.unwrap(),
            Peeked {
                model: "m".into(),
                stream: true
            }
        );
        assert!(!chat(r#"{"model":"m"}"#).unwrap().stream);
        assert!(
            !chat(r#"{"model":"m","stream":null,"store":null,"previous_response_id":null}"#)
                .unwrap()
                .stream
        );
    }

    #[test]
    fn refuses_what_is_not_one_object() {
        for body in [
            "",
            "[]",
            "1",
            "{",
            "{}x",
            r#"{"model":"m"}{}"#,
            "\u{feff}{}",
            r#"{"model":"m",}"#,
        ] {
            assert_eq!(chat(body).unwrap_err().code, Code::InvalidRequest, "{body:?}");
        }
        assert!(peek(Endpoint::Responses, b"{\"model\":\"\xff\"}").is_err());
    }

    #[test]
    fn refuses_repeated_keys_however_they_are_spelt() {
        for body in [
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"a","mod\u0065l":"b"}"#,
            r#"{"model":"a","stream":false,"stream":true}"#,
            r#"{"model":"a","store":false,"store":true}"#,
            r#"{"model":"a","previous_response_id":null,"previous_response_id":"x"}"#,
        ] {
            assert_eq!(chat(body).unwrap_err().code, Code::InvalidRequest, "{body}");
        }
    }

    #[test]
    fn refuses_wrong_types_and_missing_models() {
        for body in [
            r#"{"model":1}"#,
            r#"{"model":null}"#,
            r#"{"model":""}"#,
            r#"{"model":"m","stream":"yes"}"#,
            r#"{"stream":true}"#,
        ] {
            assert_eq!(chat(body).unwrap_err().code, Code::InvalidRequest, "{body}");
        }
        assert!(chat(&format!(r#"{{"model":"{}"}}"#, "m".repeat(MAX_MODEL_NAME_BYTES + 1))).is_err());
    }

    #[test]
    fn refuses_state() {
        let stored = chat(r#"{"model":"m","store":true}"#).unwrap_err();
        assert_eq!((stored.code, stored.param), (Code::UnsupportedParameter, Some("store")));
        let previous = chat(r#"{"model":"m","previous_response_id":"resp_1"}"#).unwrap_err();
        assert_eq!(
            (previous.code, previous.param),
            (Code::UnsupportedParameter, Some("previous_response_id"))
        );
    }

    #[test]
    fn refuses_a_stream_of_embeddings() {
        let body = br#"{"model":"m","input":"x","stream":true}"#;
        assert_eq!(peek(Endpoint::Embeddings, body).unwrap_err().param, Some("stream"));
    }

    #[test]
    fn errors_do_not_quote_the_body() {
        for body in [
            r#"{"model":"m","stream":"SECRET"}"#,
            r#"{"model":"m","store":"SECRET"}"#,
            r#"{"model":"m",SECRET}"#,
            r#"{"model":["SECRET"]}"#,
        ] {
            assert!(!chat(body).unwrap_err().message.contains("SECRET"), "{body}");
        }
    }
}
