//! Responses, made from the chunks of a chat.
//!
//! The items are built the same way for a unary answer and for a stream; a stream shows each step as an event. Identifiers are derived
//! from the engine's and the position, sequence numbers are counted.

use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    FilterOptions,
    common::{Head, TokenOut, Usage, broken},
    item::{Item, Kind},
    piece::{Call, Piece, Reader},
    wire::{ChatWire, Finish},
};
use crate::{
    ApiError,
    limits::{MAX_ITEMS, MAX_TEXT},
    plan::{ChatPlan, Plan, ResponsePlan},
    secret::{extend, write_json},
};

/// A response in the making.
pub(super) struct ResponseStream {
    pub(super) reader: Reader,
    items: Vec<Item>,
    /// Index of the engine's current tool call.
    call: Option<usize>,
    /// Bytes of text held so far.
    held: usize,
    finish: Option<Finish>,
    events: Events,
}

/// Counts and writes events, if anyone wants them.
struct Events {
    wanted: bool,
    begun: bool,
    sequence: u64,
}

impl ResponseStream {
    pub(super) fn new(plan: &Plan, chat: &ChatPlan) -> Self {
        Self {
            reader: Reader::new(chat),
            items: Vec::new(),
            call: None,
            held: 0,
            finish: None,
            events: Events {
                wanted: plan.stream,
                begun: false,
                sequence: 0,
            },
        }
    }

    /// One chunk of the engine, or its whole answer.
    pub(super) fn chunk(
        &mut self,
        wire: ChatWire<'_>,
        plan: &Plan,
        chat: &ChatPlan,
        response: &ResponsePlan,
        out: &mut Zeroizing<Vec<u8>>,
    ) -> Result<(), ApiError> {
        let pieces = self.reader.read(wire, plan, chat)?;
        self.begin(plan, response, out)?;
        for piece in pieces {
            self.piece(piece, out)?;
        }
        Ok(())
    }

    /// The engine's end.
    pub(super) fn done(
        &mut self,
        plan: &Plan,
        response: &ResponsePlan,
        options: FilterOptions,
        out: &mut Zeroizing<Vec<u8>>,
    ) -> Result<(), ApiError> {
        self.reader.progress.end()?;
        let (status, reason) = match self.finish {
            Some(Finish::Length) => ("incomplete", Some("max_output_tokens")),
            Some(Finish::ContentFilter) => ("incomplete", Some("content_filter")),
            _ => ("completed", None),
        };
        self.close(status, out)?;
        let body = self.body(status, reason, plan, response, options)?;
        if !self.events.wanted {
            extend(out, &body);
            return Ok(());
        }
        let name = if status == "completed" {
            "response.completed"
        } else {
            "response.incomplete"
        };
        self.events.response(name, &body, out)
    }

    /// The events that come before all others.
    fn begin(&mut self, plan: &Plan, response: &ResponsePlan, out: &mut Zeroizing<Vec<u8>>) -> Result<(), ApiError> {
        if !self.events.wanted || std::mem::replace(&mut self.events.begun, true) {
            return Ok(());
        }
        let body = self.body("in_progress", None, plan, response, FilterOptions::default())?;
        self.events.response("response.created", &body, out)?;
        self.events.response("response.in_progress", &body, out)
    }

    fn piece(&mut self, piece: Piece<'_>, out: &mut Zeroizing<Vec<u8>>) -> Result<(), ApiError> {
        if let Some(text) = piece.reasoning {
            self.text(Kind::Reasoning, &text, &[], out)?;
        }
        let logprobs = piece.logprobs.unwrap_or_default();
        // A refusal is text to who reads it.
        let text = piece.content.or(piece.refusal);
        if text.is_some() || !logprobs.is_empty() {
            self.text(Kind::Message, text.as_deref().unwrap_or_default(), &logprobs, out)?;
        }
        for call in piece.calls {
            self.tool_call(&call, out)?;
        }
        if piece.finish.is_some() {
            self.finish = piece.finish;
        }
        Ok(())
    }

    fn text(
        &mut self,
        kind: Kind,
        text: &str,
        logprobs: &[TokenOut<'_>],
        out: &mut Zeroizing<Vec<u8>>,
    ) -> Result<(), ApiError> {
        self.hold(text.len())?;
        if self
            .items
            .last()
            .is_none_or(|item| item.is_closed() || item.kind() != kind)
        {
            self.open(|head, place| Item::text(kind, head, place), out)?;
        }
        let output_index = self.items.len().saturating_sub(1);
        let item = self.items.last_mut().ok_or_else(broken)?;
        item.push_text(text, logprobs)?;
        let name = kind.delta_event();
        let logprobs = (kind == Kind::Message).then_some(logprobs);
        let delta = Delta {
            item_id: item.id(),
            output_index,
            content_index: Some(0),
            delta: text,
            logprobs,
        };
        self.events.write(name, &delta, out)
    }

    fn tool_call(&mut self, call: &Call<'_>, out: &mut Zeroizing<Vec<u8>>) -> Result<(), ApiError> {
        let open = self
            .items
            .last()
            .is_some_and(|item| item.kind() == Kind::Call && !item.is_closed());
        if !(open && self.call == Some(call.index)) {
            // Calls come one after the other, each with its name first.
            let in_order = self.call.is_none_or(|last| call.index > last);
            let (Some(id), Some(name), true) = (&call.id, &call.name, in_order) else {
                return Err(broken());
            };
            self.open(|head, place| Item::call(head, place, id, name), out)?;
            self.call = Some(call.index);
        }
        let arguments = call.arguments.as_deref().unwrap_or_default();
        if arguments.is_empty() {
            return Ok(());
        }
        self.hold(arguments.len())?;
        let output_index = self.items.len().saturating_sub(1);
        let item = self.items.last_mut().ok_or_else(broken)?;
        item.push_text(arguments, &[])?;
        let delta = Delta {
            item_id: item.id(),
            output_index,
            content_index: None,
            delta: arguments,
            logprobs: None,
        };
        self.events.write(Kind::Call.delta_event(), &delta, out)
    }

    /// Closes the item before and opens one.
    fn open(&mut self, make: impl FnOnce(&Head, usize) -> Item, out: &mut Zeroizing<Vec<u8>>) -> Result<(), ApiError> {
        self.close("completed", out)?;
        let output_index = self.items.len();
        if output_index >= MAX_ITEMS {
            return Err(broken());
        }
        let item = make(&self.reader.head, output_index);
        let added = ItemEvent {
            output_index,
            item: &item.empty(),
        };
        self.events.write("response.output_item.added", &added, out)?;
        if let Some(part) = item.empty_part() {
            let event = PartEvent {
                item_id: item.id(),
                output_index,
                content_index: 0,
                part,
            };
            self.events.write("response.content_part.added", &event, out)?;
        }
        self.items.push(item);
        Ok(())
    }

    /// Closes the last item, if it is open.
    fn close(&mut self, status: &'static str, out: &mut Zeroizing<Vec<u8>>) -> Result<(), ApiError> {
        let output_index = self.items.len().saturating_sub(1);
        let Some(item) = self.items.last_mut().filter(|item| !item.is_closed()) else {
            return Ok(());
        };
        item.close(status);
        let item = &*item;
        if !self.events.wanted {
            return Ok(());
        }
        self.events
            .write(item.kind().done_event(), &item.done(output_index), out)?;
        if let Some(part) = item.part() {
            let event = PartEvent {
                item_id: item.id(),
                output_index,
                content_index: 0,
                part,
            };
            self.events.write("response.content_part.done", &event, out)?;
        }
        self.events
            .write("response.output_item.done", &ItemEvent { output_index, item }, out)
    }

    fn hold(&mut self, length: usize) -> Result<(), ApiError> {
        self.held = self.held.saturating_add(length);
        if self.held > MAX_TEXT { Err(broken()) } else { Ok(()) }
    }

    /// The response object: what is known of the answer, then the settings that are repeated.
    fn body(
        &self,
        status: &'static str,
        reason: Option<&'static str>,
        plan: &Plan,
        response: &ResponsePlan,
        options: FilterOptions,
    ) -> Result<Zeroizing<Vec<u8>>, ApiError> {
        let head = &self.reader.head;
        let ended = status != "in_progress";
        let body = Body {
            id: head.id("resp_"),
            object: "response",
            created_at: head.created(),
            completed_at: (status == "completed").then_some(head.created()),
            status,
            incomplete_details: reason.map(|reason| Incomplete { reason }),
            model: &plan.served_model,
            output: &self.items,
            usage: self
                .reader
                .progress
                .usage()
                .filter(|_| ended)
                .map(|usage| ResponseUsage::new(usage, options)),
        };
        let mut json = Zeroizing::new(Vec::with_capacity(response.echo.len().saturating_add(1024)));
        write_json(&mut json, &body)?;
        // Two objects become one: `{a}` and `{b}` to `{a,b}`.
        json.pop();
        extend(&mut json, b",");
        extend(&mut json, response.echo.get(1..).unwrap_or_default());
        Ok(json)
    }
}

#[derive(Serialize)]
struct Body<'a> {
    id: String,
    object: &'static str,
    created_at: u64,
    completed_at: Option<u64>,
    status: &'static str,
    incomplete_details: Option<Incomplete>,
    model: &'a str,
    output: &'a [Item],
    usage: Option<ResponseUsage>,
}

#[derive(Serialize)]
struct Incomplete {
    reason: &'static str,
}

#[derive(Serialize)]
struct ResponseUsage {
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

/// The client's types want these numbers; zero where they are not shown.
#[derive(Serialize)]
struct InputDetails {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

#[derive(Serialize)]
struct OutputDetails {
    reasoning_tokens: u64,
}

#[derive(Serialize)]
struct Delta<'a> {
    item_id: &'a str,
    output_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_index: Option<usize>,
    delta: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a [TokenOut<'a>]>,
}

#[derive(Serialize)]
struct ItemEvent<'a, T: Serialize> {
    output_index: usize,
    item: &'a T,
}

#[derive(Serialize)]
struct PartEvent<'a, T: Serialize> {
    item_id: &'a str,
    output_index: usize,
    content_index: usize,
    part: T,
}

// === impl ResponseUsage ===

impl ResponseUsage {
    fn new(usage: Usage, options: FilterOptions) -> Self {
        let cached = usage.cached.filter(|_| options.expose_cached_tokens);
        Self {
            input_tokens: usage.prompt,
            input_tokens_details: InputDetails {
                cached_tokens: cached.unwrap_or(0),
                cache_write_tokens: 0,
            },
            output_tokens: usage.completion,
            output_tokens_details: OutputDetails {
                reasoning_tokens: usage.reasoning.unwrap_or(0),
            },
            total_tokens: usage.total,
        }
    }
}

// === impl Events ===

impl Events {
    fn write(&mut self, name: &str, payload: &impl Serialize, out: &mut Zeroizing<Vec<u8>>) -> Result<(), ApiError> {
        #[derive(Serialize)]
        struct Event<'e, T: Serialize> {
            r#type: &'e str,
            sequence_number: u64,
            #[serde(flatten)]
            payload: &'e T,
        }
        if !self.wanted {
            return Ok(());
        }
        self.name(name, out);
        write_json(
            out,
            &Event {
                r#type: name,
                sequence_number: self.sequence,
                payload,
            },
        )?;
        extend(out, b"\n\n");
        self.sequence = self.sequence.saturating_add(1);
        Ok(())
    }

    /// An event that carries the response, which is JSON already.
    fn response(&mut self, name: &str, body: &[u8], out: &mut Zeroizing<Vec<u8>>) -> Result<(), ApiError> {
        self.name(name, out);
        extend(
            out,
            format!(r#"{{"type":"{name}","sequence_number":{},"response":"#, self.sequence).as_bytes(),
        );
        extend(out, body);
        extend(out, b"}\n\n");
        self.sequence = self.sequence.saturating_add(1);
        Ok(())
    }

    fn name(&self, name: &str, out: &mut Zeroizing<Vec<u8>>) {
        extend(out, b"event: ");
        extend(out, name.as_bytes());
        extend(out, b"\ndata: ");
    }
}
