//! `/v1/responses`, translated to chat completions.
//!
//! Engines implement this endpoint in part and each in its own way, and keep state for it. A stateless response is a chat in other words,
//! so the translation is done here, once for all engines, and the engine sees a chat.

use serde::{Serialize, Serializer, ser::SerializeMap};
use zeroize::Zeroizing;

use super::{
    Context,
    body::{Content, ImageUrl, Message, Part, ResponseFormat, Role, Sampling, Tool, ToolCall, ToolChoice},
    chat::{Chat, EFFORTS, top_logprobs, verbosity},
    message::{self, Images, ONLY_TEXT_AND_IMAGES},
    sampling, tools,
    value::{Kind, Object, Value},
};
use crate::{
    ApiError, ErrorCode,
    limits::{MAX_ID, MAX_MESSAGES, MAX_PARTS},
    plan::ResponsePlan,
    secret::{Text, write_json},
};

/// Parses the body of `/v1/responses`; `model` is taken already.
pub(super) fn parse<'a>(object: &Object<'a, '_>, cx: &Context<'_>) -> Result<(Chat<'a>, ResponsePlan), ApiError> {
    refuse_state(object)?;
    sampling::drop_platform_fields(object)?;
    object.map("max_tool_calls", |value| value.integer(1, i64::MAX))?;
    let metadata = sampling::metadata(object)?;
    let instructions = object.map("instructions", |value| value.text())?;
    let tools = object
        .map("tools", |value| tools::response_tools(&value))?
        .unwrap_or_default();
    let choice = object.map("tool_choice", |value| tools::choice(&value, &tools, true))?;
    let (logprobs, top) = logprobs(object)?;
    let chat = Chat {
        messages: Vec::new(),
        sampling: Sampling {
            max_tokens: object.map("max_output_tokens", |value| sampling::token_cap(&value, 1))?,
            ..sampling::randomness(object)?
        },
        logprobs,
        format: object.map("text", |value| text(&value))?.flatten(),
        tools,
        choice,
        parallel: object.map("parallel_tool_calls", |value| value.boolean())?,
        effort: object.map("reasoning", |value| reasoning(&value))?.flatten(),
        stream: sampling::streaming(object)?.stream,
        include_usage: true,
    };
    let mut echo = Zeroizing::new(Vec::new());
    write_json(&mut echo, &Echo::new(&chat, instructions.as_deref(), &metadata, top))?;
    let messages = messages(&object.need("input")?, instructions, cx.vision)?;
    Ok((Chat { messages, ..chat }, ResponsePlan { echo }))
}

/// Nothing is kept here between requests, so nothing can be referred to.
fn refuse_state(object: &Object<'_, '_>) -> Result<(), ApiError> {
    const NO_STATE: &str = "Nothing is stored here. Send the whole conversation in `input`.";
    sampling::refuse_store(object)?;
    object.refuse("previous_response_id", NO_STATE)?;
    object.refuse("conversation", NO_STATE)?;
    object.refuse(
        "prompt",
        "Stored prompts are not supported here. Send `instructions` and `input`.",
    )?;
    object.refuse(
        "context_management",
        "Nothing is stored here, so no context is managed.",
    )?;
    object.refuse("moderation", "Moderation is not supported here.")?;
    if let Some(value) = object
        .take("background")
        .filter(|value| !matches!(value.boolean(), Ok(false)))
    {
        return Err(value
            .error(ErrorCode::UnsupportedValue)
            .with_message("Nothing is stored here, so a response cannot be made in the background."));
    }
    if let Some(value) = object.take("truncation") {
        value
            .word(&[("disabled", ())])
            .map_err(|error| error.with_message("Only `disabled` is supported here."))?;
    }
    Ok(())
}

/// `include` and `top_logprobs`: what the engine is asked for, and what the response repeats.
fn logprobs(object: &Object<'_, '_>) -> Result<(Option<u8>, u8), ApiError> {
    let included = object.map("include", |value| {
        value.array(MAX_PARTS)?.map(|item| {
            // There is never any encrypted reasoning, so asking for it changes nothing.
            item.word(&[
                ("message.output_text.logprobs", true),
                ("reasoning.encrypted_content", false),
            ])
        })
    })?;
    let top = object.map("top_logprobs", |value| top_logprobs(&value))?;
    let wanted = included.unwrap_or_default().contains(&true) || top.is_some_and(|top| top > 0);
    Ok((wanted.then_some(top.unwrap_or(0)), top.unwrap_or(0)))
}

fn text<'a>(value: &Value<'a, '_>) -> Result<Option<ResponseFormat<'a>>, ApiError> {
    let object = value.object()?;
    let format = object.map("format", |value| tools::response_format(&value))?.flatten();
    verbosity(&object)?;
    object.finish()?;
    Ok(format)
}

fn reasoning(value: &Value<'_, '_>) -> Result<Option<&'static str>, ApiError> {
    let object = value.object()?;
    let effort = object.map("effort", |value| value.word(&EFFORTS))?.flatten();
    for name in ["summary", "generate_summary"] {
        object.map(name, |value| {
            value.word(&[("auto", ()), ("concise", ()), ("detailed", ())])
        })?;
    }
    object.finish()?;
    Ok(effort)
}

fn messages<'a>(
    value: &Value<'a, '_>,
    instructions: Option<Text<'a>>,
    vision: bool,
) -> Result<Vec<Message<'a>>, ApiError> {
    let mut messages = Vec::new();
    messages.extend(instructions.map(|text| message::plain(Role::System, Content::Text(text))));
    let before = messages.len();
    if value.kind() == Kind::String {
        messages.push(message::plain(Role::User, Content::Text(value.text()?)));
    } else {
        let mut images = Images::new(vision);
        for item in value.array(MAX_MESSAGES)?.iter() {
            push_item(&item, &mut messages, &mut images)?;
        }
    }
    if messages.len() == before {
        return Err(value
            .error(ErrorCode::InvalidValue)
            .with_message("There must be at least one message."));
    }
    Ok(messages)
}

fn push_item<'a>(value: &Value<'a, '_>, messages: &mut Vec<Message<'a>>, images: &mut Images) -> Result<(), ApiError> {
    let object = value.object()?;
    object.map("id", |value| value.text_up_to(MAX_ID))?;
    object.map("status", |value| {
        value.word(&[("in_progress", ()), ("completed", ()), ("incomplete", ())])
    })?;
    let kind = object.map("type", |value| value.text())?;
    match kind.as_deref() {
        None | Some("message") => messages.push(message_item(&object, images)?),
        Some("function_call") => {
            let call = ToolCall {
                id: object.need("call_id")?.text_up_to(MAX_ID)?,
                name: object.need("name")?.name()?,
                arguments: object.need("arguments")?.text()?,
            };
            push_call(call, messages);
        }
        Some("function_call_output") => messages.push(Message {
            tool_call_id: Some(object.need("call_id")?.text_up_to(MAX_ID)?),
            ..message::plain(Role::Tool, parts(&object.need("output")?, images)?)
        }),
        // Clients send back all that they were answered. Reasoning is not shown to a model again.
        Some("reasoning") => {
            for name in ["summary", "content"] {
                object.map(name, |value| value.array(MAX_PARTS).map(drop))?;
            }
            object.map("encrypted_content", |value| value.text())?;
        }
        Some("item_reference") => {
            return Err(value
                .error(ErrorCode::UnsupportedValue)
                .with_message("Nothing is stored here, so an item cannot be referred to. Send the item."));
        }
        Some(_) => return Err(value.error(ErrorCode::UnsupportedValue).with_message(ONLY_KNOWN_ITEMS)),
    }
    object.finish()
}

const ONLY_KNOWN_ITEMS: &str = "Only messages, function calls and their outputs are supported as input here.";

fn message_item<'a>(object: &Object<'a, '_>, images: &mut Images) -> Result<Message<'a>, ApiError> {
    let role = object.need("role")?.word(&[
        ("system", Role::System),
        ("developer", Role::System),
        ("user", Role::User),
        ("assistant", Role::Assistant),
    ])?;
    object.map("phase", |value| value.text_up_to(MAX_ID))?;
    let content = object.need("content")?;
    let content = match role {
        Role::Assistant => answered(&content)?,
        _ => parts(&content, images)?,
    };
    Ok(message::plain(role, content))
}

/// Calls that follow each other, or the text before them, are one message of the assistant.
fn push_call<'a>(call: ToolCall<'a>, messages: &mut Vec<Message<'a>>) {
    match messages.last_mut() {
        Some(last) if last.role == Role::Assistant => last.tool_calls.push(call),
        _ => messages.push(Message {
            role: Role::Assistant,
            content: None,
            name: None,
            tool_calls: vec![call],
            tool_call_id: None,
        }),
    }
}

fn parts<'a>(value: &Value<'a, '_>, images: &mut Images) -> Result<Content<'a>, ApiError> {
    let content = message::content(value, |kind, part| match kind {
        "input_text" => Ok(Part::Text {
            text: part.need("text")?.text()?,
        }),
        "input_image" => {
            part.refuse(
                "file_id",
                "Nothing is stored here, so a file cannot be referred to. Send a `data:` URI.",
            )?;
            message::detail(part)?;
            Ok(Part::ImageUrl {
                image_url: ImageUrl {
                    url: images.image(&part.need("image_url")?)?,
                },
            })
        }
        _ => Err(part
            .need("type")?
            .error(ErrorCode::UnsupportedValue)
            .with_message(ONLY_TEXT_AND_IMAGES)),
    })?;
    Ok(single(content))
}

fn answered<'a>(value: &Value<'a, '_>) -> Result<Content<'a>, ApiError> {
    let content = message::content(value, |kind, part| match kind {
        "output_text" | "input_text" => {
            for echoed in ["annotations", "logprobs"] {
                part.map(echoed, |value| value.array(usize::MAX).map(drop))?;
            }
            Ok(Part::Text {
                text: part.need("text")?.text()?,
            })
        }
        "refusal" => Ok(Part::Text {
            text: part.need("refusal")?.text()?,
        }),
        _ => Err(part.need("type")?.error(ErrorCode::UnsupportedValue)),
    })?;
    Ok(single(content))
}

/// A single text is written as a string, which every chat template takes.
fn single(content: Content<'_>) -> Content<'_> {
    match content {
        Content::Parts(mut parts) if parts.len() == 1 => match parts.pop() {
            Some(Part::Text { text }) => Content::Text(text),
            other => Content::Parts(other.into_iter().collect()),
        },
        content => content,
    }
}

/// The settings that a response repeats.
#[derive(Serialize)]
struct Echo<'e> {
    background: bool,
    error: Option<()>,
    instructions: Option<&'e str>,
    max_output_tokens: Option<u32>,
    metadata: EchoMetadata<'e>,
    parallel_tool_calls: bool,
    previous_response_id: Option<()>,
    reasoning: EchoReasoning,
    service_tier: &'static str,
    store: bool,
    temperature: Option<f64>,
    text: EchoText<'e>,
    tool_choice: EchoChoice<'e>,
    tools: Vec<EchoTool<'e>>,
    top_logprobs: u8,
    top_p: Option<f64>,
    truncation: &'static str,
}

#[derive(Serialize)]
struct EchoReasoning {
    effort: Option<&'static str>,
    summary: Option<()>,
}

#[derive(Serialize)]
struct EchoText<'e> {
    format: EchoFormat<'e>,
}

struct EchoMetadata<'e>(&'e [(Text<'e>, Text<'e>)]);
struct EchoFormat<'e>(Option<&'e ResponseFormat<'e>>);
struct EchoChoice<'e>(Option<&'e ToolChoice<'e>>);
struct EchoTool<'e>(&'e Tool<'e>);

// === impl Echo ===

impl<'e> Echo<'e> {
    fn new(chat: &'e Chat<'_>, instructions: Option<&'e str>, metadata: &'e [(Text<'_>, Text<'_>)], top: u8) -> Self {
        Self {
            background: false,
            error: None,
            instructions,
            max_output_tokens: chat.sampling.max_tokens,
            metadata: EchoMetadata(metadata),
            parallel_tool_calls: chat.parallel.unwrap_or(true),
            previous_response_id: None,
            reasoning: EchoReasoning {
                effort: chat.effort,
                summary: None,
            },
            service_tier: "default",
            store: false,
            temperature: chat.sampling.temperature,
            text: EchoText {
                format: EchoFormat(chat.format.as_ref()),
            },
            tool_choice: EchoChoice(chat.choice.as_ref()),
            tools: chat.tools.iter().map(EchoTool).collect(),
            top_logprobs: top,
            top_p: chat.sampling.top_p,
            truncation: "disabled",
        }
    }
}

impl Serialize for EchoMetadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Serialize for EchoFormat<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.0 {
            None => map.serialize_entry("type", "text")?,
            Some(ResponseFormat::JsonObject) => map.serialize_entry("type", "json_object")?,
            Some(ResponseFormat::JsonSchema { json_schema }) => {
                map.serialize_entry("type", "json_schema")?;
                map.serialize_entry("name", &json_schema.name)?;
                map.serialize_entry("schema", &json_schema.schema)?;
                map.serialize_entry("strict", &json_schema.strict)?;
            }
        }
        map.end()
    }
}

impl Serialize for EchoChoice<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            None => serializer.serialize_str("auto"),
            Some(ToolChoice::Function(name)) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("type", "function")?;
                map.serialize_entry("name", name)?;
                map.end()
            }
            Some(choice) => choice.serialize(serializer),
        }
    }
}

impl Serialize for EchoTool<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("type", "function")?;
        map.serialize_entry("name", &self.0.name)?;
        map.serialize_entry("description", &self.0.description)?;
        map.serialize_entry("parameters", &self.0.parameters)?;
        map.serialize_entry("strict", &self.0.strict)?;
        map.end()
    }
}
