//! Items of a response: messages, reasoning and function calls.

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::common::{Head, TokenOut, broken};
use crate::{
    ApiError,
    limits::MAX_TEXT,
    secret::{extend, extend_str, write_json},
};

/// What an item is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Reasoning,
    Call,
}

/// One item with all of its text so far.
pub(super) struct Item {
    kind: Kind,
    id: String,
    /// `call_id` and `name` of a call.
    call: Option<(Zeroizing<String>, Zeroizing<String>)>,
    /// Text, or arguments of a call.
    text: Zeroizing<String>,
    /// Probabilities of the text's tokens: the items of a JSON array.
    logprobs: Zeroizing<Vec<u8>>,
    status: Option<&'static str>,
}

/// An item as it looks before it has any text.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Empty<'a>(View<'a>);

/// The text of a message or of reasoning.
pub(super) struct ContentPart<'a> {
    kind: Kind,
    text: &'a str,
    logprobs: &'a [u8],
}

/// What the event says that ends an item's text.
pub(super) struct Done<'a> {
    item: &'a Item,
    output_index: usize,
}

struct View<'a> {
    item: &'a Item,
    whole: bool,
}

/// The items of a JSON array that was written before.
struct Written<'a>(&'a [u8]);

// === impl Kind ===

impl Kind {
    pub(super) fn delta_event(self) -> &'static str {
        match self {
            Kind::Message => "response.output_text.delta",
            Kind::Reasoning => "response.reasoning_text.delta",
            Kind::Call => "response.function_call_arguments.delta",
        }
    }

    pub(super) fn done_event(self) -> &'static str {
        match self {
            Kind::Message => "response.output_text.done",
            Kind::Reasoning => "response.reasoning_text.done",
            Kind::Call => "response.function_call_arguments.done",
        }
    }
}

// === impl Item ===

impl Item {
    /// An empty message or reasoning at a position of the output.
    pub(super) fn text(kind: Kind, head: &Head, place: usize) -> Self {
        let prefix = if kind == Kind::Reasoning { "rs" } else { "msg" };
        Self::new(kind, format!("{prefix}_{}_{place}", head.suffix()), None)
    }

    /// A call without arguments at a position of the output.
    pub(super) fn call(head: &Head, place: usize, call_id: &str, name: &str) -> Self {
        let call = (Zeroizing::new(call_id.to_owned()), Zeroizing::new(name.to_owned()));
        Self::new(Kind::Call, format!("fc_{}_{place}", head.suffix()), Some(call))
    }

    fn new(kind: Kind, id: String, call: Option<(Zeroizing<String>, Zeroizing<String>)>) -> Self {
        let (text, logprobs) = (Zeroizing::new(String::new()), Zeroizing::new(Vec::new()));
        Self {
            kind,
            id,
            call,
            text,
            logprobs,
            status: None,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn is_closed(&self) -> bool {
        self.status.is_some()
    }

    pub(super) fn close(&mut self, status: &'static str) {
        self.status = Some(status);
    }

    pub(super) fn push_text(&mut self, text: &str, logprobs: &[TokenOut<'_>]) -> Result<(), ApiError> {
        extend_str(&mut self.text, text);
        for token in logprobs {
            if !self.logprobs.is_empty() {
                extend(&mut self.logprobs, b",");
            }
            write_json(&mut self.logprobs, token)?;
        }
        if self.logprobs.len() > MAX_TEXT.saturating_mul(4) {
            return Err(broken());
        }
        Ok(())
    }

    pub(super) fn empty(&self) -> Empty<'_> {
        Empty(View {
            item: self,
            whole: false,
        })
    }

    /// The part that is announced before its text; calls have none.
    pub(super) fn empty_part(&self) -> Option<ContentPart<'_>> {
        (self.kind != Kind::Call).then_some(ContentPart {
            kind: self.kind,
            text: "",
            logprobs: b"",
        })
    }

    pub(super) fn part(&self) -> Option<ContentPart<'_>> {
        let part = ContentPart {
            kind: self.kind,
            text: &self.text,
            logprobs: &self.logprobs,
        };
        (self.kind != Kind::Call).then_some(part)
    }

    pub(super) fn done(&self, output_index: usize) -> Done<'_> {
        Done {
            item: self,
            output_index,
        }
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        View {
            item: self,
            whole: true,
        }
        .serialize(serializer)
    }
}

// === impl View ===

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { item, whole } = *self;
        let status = if whole {
            item.status.unwrap_or("in_progress")
        } else {
            "in_progress"
        };
        let parts = || item.part().filter(|_| whole);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &item.id)?;
        match item.kind {
            Kind::Message => {
                map.serialize_entry("type", "message")?;
                map.serialize_entry("role", "assistant")?;
                map.serialize_entry("content", parts().as_slice())?;
            }
            Kind::Reasoning => {
                map.serialize_entry("type", "reasoning")?;
                map.serialize_entry("summary", &[(); 0])?;
                map.serialize_entry("content", parts().as_slice())?;
            }
            Kind::Call => {
                map.serialize_entry("type", "function_call")?;
                if let Some((call_id, name)) = &item.call {
                    map.serialize_entry("call_id", &**call_id)?;
                    map.serialize_entry("name", &**name)?;
                }
                map.serialize_entry("arguments", if whole { item.text.as_str() } else { "" })?;
            }
        }
        map.serialize_entry("status", status)?;
        map.end()
    }
}

// === impl ContentPart ===

impl Serialize for ContentPart<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if self.kind == Kind::Reasoning {
            map.serialize_entry("type", "reasoning_text")?;
            map.serialize_entry("text", self.text)?;
        } else {
            map.serialize_entry("type", "output_text")?;
            map.serialize_entry("annotations", &[(); 0])?;
            map.serialize_entry("logprobs", &Written(self.logprobs))?;
            map.serialize_entry("text", self.text)?;
        }
        map.end()
    }
}

// === impl Done ===

impl Serialize for Done<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("item_id", &self.item.id)?;
        map.serialize_entry("output_index", &self.output_index)?;
        match self.item.kind {
            Kind::Call => {
                // The name is in newer versions of the API.
                if let Some((_, name)) = &self.item.call {
                    map.serialize_entry("name", &**name)?;
                }
                map.serialize_entry("arguments", &*self.item.text)?;
            }
            kind => {
                map.serialize_entry("content_index", &0)?;
                map.serialize_entry("text", &*self.item.text)?;
                if kind == Kind::Message {
                    map.serialize_entry("logprobs", &Written(&self.item.logprobs))?;
                }
            }
        }
        map.end()
    }
}

// === impl Written ===

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut array = Zeroizing::new(Vec::with_capacity(self.0.len().saturating_add(2)));
        array.push(b'[');
        array.extend_from_slice(self.0);
        array.push(b']');
        // It was written as JSON by this crate; that it is still JSON is checked once more here.
        let raw: &RawValue = serde_json::from_slice(&array).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}
