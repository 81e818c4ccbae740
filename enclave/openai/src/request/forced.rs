//! Tool calls that the client demands, for llama.cpp.
//!
//! llama.cpp offers tools only through the model's own chat template: with a template that knows none it drops them in silence, it
//! ignores a named `tool_choice`, and with `required` its grammar still lets a model talk without end before the call. A demanded call is
//! therefore asked for as a JSON answer under a schema, which the engine enforces token by token for every model, and the answer
//! filter turns that JSON into the call.

use zeroize::Zeroizing;

use super::{
    body::{Content, JsonSchema, Part, ResponseFormat, Role, Tool, ToolChoice},
    chat::Chat,
    json::Json,
    message,
};
use crate::{
    ApiError, ErrorCode,
    secret::{Text, extend_str, write_json},
};

const INSTRUCTION: &str = "Answer by calling one of the functions below. Write one JSON object with the \"name\" of the function and \
                           its \"arguments\", and nothing else.\n";

/// Rewrites a chat that demands a call. Returns the names that may be called, or `None` if nothing is demanded.
pub(super) fn apply(chat: &mut Chat<'_>) -> Result<Option<Vec<String>>, ApiError> {
    let tools = match &chat.choice {
        Some(ToolChoice::Required) => std::mem::take(&mut chat.tools),
        Some(ToolChoice::Function(name)) => {
            let mut tools = std::mem::take(&mut chat.tools);
            tools.retain(|tool| *tool.name == **name);
            tools
        }
        _ => return Ok(None),
    };
    if chat.logprobs.is_some() {
        // They would be those of the JSON around the call.
        return Err(ApiError::new(ErrorCode::UnsupportedValue)
            .with_param("logprobs")
            .with_message("`logprobs` is not supported together with a demanded tool call here."));
    }
    let names = tools.iter().map(|tool| tool.name.to_string()).collect();
    instruct(chat, &tools)?;
    chat.format = Some(ResponseFormat::JsonSchema {
        json_schema: JsonSchema {
            name: Text::Borrowed("call"),
            schema: call_schema(tools),
            strict: Some(true),
        },
    });
    chat.choice = None;
    // They are about the text of an answer, and would cut the JSON of the call.
    chat.sampling.stop.clear();
    Ok(Some(names))
}

/// Shows the functions to the model in its system message.
fn instruct(chat: &mut Chat<'_>, tools: &[Tool<'_>]) -> Result<(), ApiError> {
    let mut json = Zeroizing::new(Vec::new());
    for tool in tools {
        write_json(&mut json, &tool.function())?;
        crate::secret::extend(&mut json, b"\n");
    }
    let mut text = Zeroizing::new(INSTRUCTION.to_owned());
    extend_str(&mut text, std::str::from_utf8(&json).unwrap_or_default());

    match chat
        .messages
        .first_mut()
        .filter(|message| message.role == Role::System)
        .map(|message| &mut message.content)
    {
        Some(Some(Content::Text(first))) => {
            let mut joined = Zeroizing::new(first.to_string());
            extend_str(&mut joined, "\n\n");
            extend_str(&mut joined, &text);
            *first = Text::Owned(joined);
        }
        Some(Some(Content::Parts(parts))) => parts.push(Part::Text {
            text: Text::Owned(text),
        }),
        _ => chat
            .messages
            .insert(0, message::plain(Role::System, Content::Text(Text::Owned(text)))),
    }
    Ok(())
}

/// The schema of one call of one of the tools.
///
/// The parameters stand in `$defs` so that the references inside them lead through objects only, which is all that llama.cpp follows.
fn call_schema(tools: Vec<Tool<'_>>) -> Json<'_> {
    let mut calls = Vec::with_capacity(tools.len());
    let mut definitions = Vec::with_capacity(tools.len());
    for (index, mut tool) in tools.into_iter().enumerate() {
        let place = format!("t{index}");
        tool.parameters.rebase(&format!("/$defs/{place}"));
        calls.push(object([
            ("type", string("object".to_owned())),
            (
                "properties",
                object([
                    ("name", object([("const", Json::String(tool.name))])),
                    ("arguments", object([("$ref", string(format!("#/$defs/{place}")))])),
                ]),
            ),
            (
                "required",
                Json::Array(vec![string("name".to_owned()), string("arguments".to_owned())]),
            ),
            ("additionalProperties", Json::Bool(false)),
        ]));
        definitions.push((Text::Owned(Zeroizing::new(place)), tool.parameters));
    }
    object([("anyOf", Json::Array(calls)), ("$defs", Json::Object(definitions))])
}

fn object<'a, const N: usize>(fields: [(&'static str, Json<'a>); N]) -> Json<'a> {
    Json::Object(
        fields
            .into_iter()
            .map(|(name, value)| (Text::Borrowed(name), value))
            .collect(),
    )
}

fn string(text: String) -> Json<'static> {
    Json::String(Text::Owned(Zeroizing::new(text)))
}
