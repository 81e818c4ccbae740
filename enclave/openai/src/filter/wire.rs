//! What engines send, as far as it is read. Every field that is not named here is dropped.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess},
};
use serde_json::value::RawValue;

use crate::secret::Text;

/// A chat completion, or one chunk of it: `message` and `delta` have the same fields.
#[derive(Deserialize)]
pub(super) struct ChatWire<'a> {
    #[serde(borrow)]
    pub(super) id: Option<Text<'a>>,
    pub(super) created: Option<u64>,
    #[serde(borrow)]
    pub(super) choices: Option<Vec<ChatChoiceWire<'a>>>,
    pub(super) usage: Option<UsageWire>,
}

#[derive(Deserialize)]
pub(super) struct ChatChoiceWire<'a> {
    #[serde(default)]
    pub(super) index: usize,
    #[serde(borrow, alias = "message")]
    pub(super) delta: Option<DeltaWire<'a>>,
    #[serde(borrow)]
    pub(super) logprobs: Option<ChatLogprobsWire<'a>>,
    pub(super) finish_reason: Option<Finish>,
}

#[derive(Default, Deserialize)]
pub(super) struct DeltaWire<'a> {
    #[serde(borrow)]
    pub(super) content: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) refusal: Option<Text<'a>>,
    /// llama.cpp and older vLLM.
    #[serde(borrow)]
    pub(super) reasoning_content: Option<Text<'a>>,
    /// vLLM.
    #[serde(borrow)]
    pub(super) reasoning: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) tool_calls: Option<Vec<CallWire<'a>>>,
}

#[derive(Deserialize)]
pub(super) struct CallWire<'a> {
    pub(super) index: Option<usize>,
    #[serde(borrow)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) function: Option<FunctionWire<'a>>,
}

#[derive(Deserialize)]
pub(super) struct FunctionWire<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) arguments: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct ChatLogprobsWire<'a> {
    #[serde(borrow)]
    pub(super) content: Option<Vec<TokenWire<'a>>>,
}

/// One token and its alternatives.
#[derive(Deserialize)]
pub(super) struct TokenWire<'a> {
    #[serde(borrow)]
    pub(super) token: Text<'a>,
    pub(super) logprob: Option<f64>,
    #[serde(borrow)]
    pub(super) bytes: Option<Bytes<'a>>,
    #[serde(borrow)]
    pub(super) top_logprobs: Option<Vec<TopWire<'a>>>,
}

#[derive(Deserialize)]
pub(super) struct TopWire<'a> {
    #[serde(borrow)]
    pub(super) token: Text<'a>,
    pub(super) logprob: Option<f64>,
    #[serde(borrow)]
    pub(super) bytes: Option<Bytes<'a>>,
}

/// A completion, or one chunk of it.
#[derive(Deserialize)]
pub(super) struct CompletionWire<'a> {
    #[serde(borrow)]
    pub(super) id: Option<Text<'a>>,
    pub(super) created: Option<u64>,
    #[serde(borrow)]
    pub(super) choices: Option<Vec<CompletionChoiceWire<'a>>>,
    pub(super) usage: Option<UsageWire>,
}

#[derive(Deserialize)]
pub(super) struct CompletionChoiceWire<'a> {
    #[serde(default)]
    pub(super) index: usize,
    #[serde(borrow)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) logprobs: Option<CompletionLogprobsWire<'a>>,
    pub(super) finish_reason: Option<Finish>,
}

/// llama.cpp sends the form of chats (`content`), vLLM the form of completions.
#[derive(Deserialize)]
pub(super) struct CompletionLogprobsWire<'a> {
    #[serde(borrow)]
    pub(super) content: Option<Vec<TokenWire<'a>>>,
    #[serde(borrow)]
    pub(super) tokens: Option<Vec<Text<'a>>>,
    pub(super) token_logprobs: Option<Vec<Option<f64>>>,
    #[serde(borrow)]
    pub(super) top_logprobs: Option<Vec<Option<Pairs<'a>>>>,
    pub(super) text_offset: Option<Vec<u64>>,
}

/// Embeddings.
#[derive(Deserialize)]
pub(super) struct EmbeddingsWire<'a> {
    #[serde(borrow)]
    pub(super) data: Vec<EmbeddingWire<'a>>,
    pub(super) usage: Option<UsageWire>,
}

#[derive(Deserialize)]
pub(super) struct EmbeddingWire<'a> {
    pub(super) index: usize,
    #[serde(borrow)]
    pub(super) embedding: Embedding<'a>,
}

/// A vector as numbers, or its little-endian bytes in base64.
pub(super) enum Embedding<'a> {
    Floats(Vec<f32>),
    Base64(Text<'a>),
}

#[derive(Clone, Copy, Default, Deserialize)]
pub(super) struct UsageWire {
    #[serde(default)]
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: Option<u64>,
    #[serde(default)]
    pub(super) total_tokens: u64,
    pub(super) prompt_tokens_details: Option<PromptDetailsWire>,
    pub(super) completion_tokens_details: Option<CompletionDetailsWire>,
}

#[derive(Clone, Copy, Deserialize)]
pub(super) struct PromptDetailsWire {
    pub(super) cached_tokens: Option<u64>,
}

#[derive(Clone, Copy, Deserialize)]
pub(super) struct CompletionDetailsWire {
    pub(super) reasoning_tokens: Option<u64>,
}

/// An error, as a body of its own or as an event. Older vLLM has the fields of `error` at the top beside `"object":"error"`.
#[derive(Deserialize)]
pub(super) struct FaultWire<'a> {
    #[serde(borrow)]
    pub(super) error: Option<FaultBodyWire<'a>>,
    #[serde(borrow)]
    pub(super) object: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) message: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) code: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
pub(super) struct FaultBodyWire<'a> {
    #[serde(borrow)]
    pub(super) message: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) code: Option<&'a RawValue>,
}

/// Why an answer ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    Length,
    ToolCalls,
    ContentFilter,
    /// Anything else, such as vLLM's `abort`: not an end that a client may take for one.
    Broken,
}

/// A list of small numbers, passed on as it stands after a look at its characters.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(&'a RawValue);

/// The first of each name in an object of numbers.
pub(super) struct Pairs<'a>(pub(super) Vec<(Text<'a>, f64)>);

/// What an engine writes for a probability of zero, which JSON has no logarithm for.
pub(super) const NO_LOGPROB: f64 = -9999.0;

// === impl Finish ===

impl Finish {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::ToolCalls => "tool_calls",
            Finish::ContentFilter => "content_filter",
            Finish::Broken => "error",
        }
    }
}

impl<'de> Deserialize<'de> for Finish {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match &*Text::deserialize(deserializer)? {
            "stop" => Finish::Stop,
            "length" => Finish::Length,
            "tool_calls" | "function_call" => Finish::ToolCalls,
            "content_filter" => Finish::ContentFilter,
            _ => Finish::Broken,
        })
    }
}

impl Serialize for Finish {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

// === impl Bytes ===

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?;
        let list = raw.get().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let plain = |list: &str| list.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b',' | b' '));
        if list.is_some_and(plain) {
            Ok(Bytes(raw))
        } else {
            Err(de::Error::custom("not a list of bytes"))
        }
    }
}

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

// === impl Pairs ===

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Pairs(Vec::new());
                while let Some((name, number)) = map.next_entry::<Text<'de>, Option<f64>>()? {
                    pairs.push(name, number);
                }
                Ok(pairs)
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

impl<'a> Pairs<'a> {
    /// Adds a pair unless its name is there already: different tokens can have the same text.
    pub(super) fn push(&mut self, name: Text<'a>, number: Option<f64>) {
        if !self.0.iter().any(|(known, _)| **known == *name) {
            self.0.push((name, number.unwrap_or(NO_LOGPROB)));
        }
    }
}

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, number)| (name, number)))
    }
}

// === impl Embedding ===

impl<'de: 'a, 'a> Deserialize<'de> for Embedding<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Embedding<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("numbers or base64")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Embedding<'de>, E> {
                Ok(Embedding::Base64(Text::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, _text: &str) -> Result<Embedding<'de>, E> {
                Err(E::custom("base64 has no escapes"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Embedding<'de>, A::Error> {
                let mut floats = Vec::new();
                while let Some(float) = seq.next_element()? {
                    floats.push(float);
                }
                Ok(Embedding::Floats(floats))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
