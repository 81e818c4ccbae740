//! Chat completions, unary and streamed.

use serde::{Serialize, Serializer, ser::SerializeMap};
use zeroize::Zeroizing;

use super::{
    FilterOptions,
    common::{TokenOut, UsageOut, broken, write_done, write_event},
    piece::{Call, Piece, Reader},
    wire::{ChatWire, Finish},
};
use crate::{
    ApiError,
    plan::{ChatPlan, Plan},
    secret::{Text, write_json},
};

/// A streamed chat.
pub(super) struct ChatStream {
    pub(super) reader: Reader,
    id: String,
    /// Whether a choice was given its role.
    begun: Vec<bool>,
}

impl ChatStream {
    pub(super) fn new(chat: &ChatPlan) -> Self {
        Self {
            reader: Reader::new(chat),
            id: String::new(),
            begun: vec![false; chat.choices],
        }
    }

    /// One chunk of the engine.
    pub(super) fn chunk(
        &mut self,
        wire: ChatWire<'_>,
        plan: &Plan,
        chat: &ChatPlan,
        out: &mut Zeroizing<Vec<u8>>,
    ) -> Result<(), ApiError> {
        let pieces = self.reader.read(wire, plan, chat)?;
        if self.id.is_empty() {
            self.id = self.reader.head.id("chatcmpl-");
        }
        for piece in pieces {
            let begun = self.begun.get_mut(piece.index).ok_or_else(broken)?;
            let first = !std::mem::replace(begun, true);
            // A chunk that says nothing, such as one that only held a role or hidden JSON, is not worth a record.
            if first || !piece.says_nothing() {
                self.write(
                    plan,
                    Some(&ChunkChoice::new(piece, first, chat)),
                    plan.include_usage.then_some(None),
                    out,
                )?;
            }
        }
        Ok(())
    }

    /// The engine's `[DONE]`.
    pub(super) fn done(
        &mut self,
        plan: &Plan,
        options: FilterOptions,
        out: &mut Zeroizing<Vec<u8>>,
    ) -> Result<(), ApiError> {
        self.reader.progress.end()?;
        if let Some(usage) = self.reader.progress.usage().filter(|_| plan.include_usage) {
            self.write(plan, None, Some(Some(usage.out(options, true))), out)?;
        }
        write_done(out);
        Ok(())
    }

    fn write(
        &self,
        plan: &Plan,
        choice: Option<&ChunkChoice<'_>>,
        usage: Option<Option<UsageOut>>,
        out: &mut Zeroizing<Vec<u8>>,
    ) -> Result<(), ApiError> {
        #[derive(Serialize)]
        struct Chunk<'c> {
            id: &'c str,
            object: &'static str,
            created: u64,
            model: &'c str,
            choices: &'c [&'c ChunkChoice<'c>],
            #[serde(skip_serializing_if = "Option::is_none")]
            usage: Option<Option<UsageOut>>,
        }
        let chunk = Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.reader.head.created(),
            model: &plan.served_model,
            choices: choice.as_slice(),
            usage,
        };
        write_event(out, &chunk)
    }
}

/// A whole chat.
pub(super) fn unary(
    reader: &mut Reader,
    wire: ChatWire<'_>,
    plan: &Plan,
    chat: &ChatPlan,
    options: FilterOptions,
    out: &mut Zeroizing<Vec<u8>>,
) -> Result<(), ApiError> {
    #[derive(Serialize)]
    struct Completion<'c> {
        id: &'c str,
        object: &'static str,
        created: u64,
        model: &'c str,
        choices: Vec<Choice<'c>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage: Option<UsageOut>,
    }
    let mut pieces = reader.read(wire, plan, chat)?;
    reader.progress.end()?;
    pieces.sort_by_key(|piece| piece.index);
    let completion = Completion {
        id: &reader.head.id("chatcmpl-"),
        object: "chat.completion",
        created: reader.head.created(),
        model: &plan.served_model,
        choices: pieces.into_iter().map(|piece| Choice::new(piece, chat)).collect(),
        usage: reader.progress.usage().map(|usage| usage.out(options, true)),
    };
    write_json(out, &completion)
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: Delta<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<Finish>,
}

#[derive(Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallOut<'a>>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    message: Message<'a>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<Finish>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<Text<'a>>,
    refusal: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallOut<'a>>,
}

#[derive(Serialize)]
struct Logprobs<'a> {
    content: Vec<TokenOut<'a>>,
    refusal: Option<()>,
}

struct CallOut<'a> {
    call: Call<'a>,
    /// Chunks number their calls, whole messages do not.
    numbered: bool,
}

// === impl Piece ===

impl Piece<'_> {
    fn says_nothing(&self) -> bool {
        self.content.is_none()
            && self.refusal.is_none()
            && self.reasoning.is_none()
            && self.calls.is_empty()
            && self.finish.is_none()
            && self.logprobs.as_ref().is_none_or(Vec::is_empty)
    }
}

// === impl ChunkChoice ===

impl<'a> ChunkChoice<'a> {
    fn new(piece: Piece<'a>, first: bool, chat: &ChatPlan) -> Self {
        let empty = first && piece.calls.is_empty();
        let content = piece.content.or(empty.then_some(Text::Borrowed("")));
        Self {
            index: piece.index,
            delta: Delta {
                role: first.then_some("assistant"),
                content,
                refusal: piece.refusal,
                reasoning_content: piece.reasoning,
                tool_calls: calls(piece.calls, true),
            },
            logprobs: logprobs(piece.logprobs, chat),
            finish_reason: piece.finish,
        }
    }
}

// === impl Choice ===

impl<'a> Choice<'a> {
    fn new(piece: Piece<'a>, chat: &ChatPlan) -> Self {
        let empty = piece.calls.is_empty().then_some(Text::Borrowed(""));
        Self {
            index: piece.index,
            message: Message {
                role: "assistant",
                content: piece.content.or(empty),
                refusal: piece.refusal,
                reasoning_content: piece.reasoning,
                tool_calls: calls(piece.calls, false),
            },
            logprobs: logprobs(piece.logprobs, chat),
            finish_reason: piece.finish,
        }
    }
}

fn calls(calls: Vec<Call<'_>>, numbered: bool) -> Vec<CallOut<'_>> {
    calls.into_iter().map(|call| CallOut { call, numbered }).collect()
}

fn logprobs<'a>(tokens: Option<Vec<TokenOut<'a>>>, chat: &ChatPlan) -> Option<Logprobs<'a>> {
    chat.top_logprobs?;
    tokens.map(|content| Logprobs { content, refusal: None })
}

// === impl CallOut ===

impl Serialize for CallOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Function<'f> {
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<&'f str>,
            arguments: &'f str,
        }
        let mut map = serializer.serialize_map(None)?;
        if self.numbered {
            map.serialize_entry("index", &self.call.index)?;
        }
        if let Some(id) = &self.call.id {
            map.serialize_entry("id", id)?;
            map.serialize_entry("type", "function")?;
        }
        let arguments = self.call.arguments.as_deref().unwrap_or_default();
        map.serialize_entry(
            "function",
            &Function {
                name: self.call.name.as_deref(),
                arguments,
            },
        )?;
        map.end()
    }
}
