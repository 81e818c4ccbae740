//! Functions, the choice among them, and the form of the answer.

use super::{
    body::{JsonSchema, ResponseFormat, Tool, ToolChoice},
    json::Json,
    value::{Kind, Object, Value},
};
use crate::{
    ApiError, ErrorCode,
    limits::{MAX_DESCRIPTION, MAX_TOOLS},
    secret::Text,
};

const ONLY_FUNCTIONS: &str = "Only tools of type `function` are supported here.";

/// The tools of a chat: `{"type":"function","function":{…}}`.
pub(super) fn chat_tools<'a>(value: &Value<'a, '_>) -> Result<Vec<Tool<'a>>, ApiError> {
    let tools = value.array(MAX_TOOLS)?.map(|item| {
        let object = item.object()?;
        only_functions(&object)?;
        let tool = function(object.need("function")?.object()?)?;
        object.finish()?;
        Ok(tool)
    })?;
    distinct(value, tools)
}

/// The tools of a response: `{"type":"function",…}`.
pub(super) fn response_tools<'a>(value: &Value<'a, '_>) -> Result<Vec<Tool<'a>>, ApiError> {
    let tools = value.array(MAX_TOOLS)?.map(|item| {
        let object = item.object()?;
        only_functions(&object)?;
        function(object)
    })?;
    distinct(value, tools)
}

/// `tool_choice`; the name stands in an object `function` for chats and beside `type` for responses.
pub(super) fn choice<'a>(
    value: &Value<'a, '_>,
    tools: &[Tool<'a>],
    response: bool,
) -> Result<ToolChoice<'a>, ApiError> {
    let choice = match value.kind() {
        Kind::String => match &*value.text()? {
            "none" => ToolChoice::None,
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            _ => return Err(value.error(ErrorCode::UnsupportedValue)),
        },
        _ => {
            let object = value.object()?;
            only_functions(&object)?;
            let name = if response {
                object.need("name")?.name()?
            } else {
                let function = object.need("function")?.object()?;
                let name = function.need("name")?.name()?;
                function.finish()?;
                name
            };
            object.finish()?;
            ToolChoice::Function(name)
        }
    };
    let known = match &choice {
        ToolChoice::None | ToolChoice::Auto => true,
        ToolChoice::Required => !tools.is_empty(),
        ToolChoice::Function(name) => tools.iter().any(|tool| *tool.name == **name),
    };
    if known {
        Ok(choice)
    } else {
        Err(value
            .error(ErrorCode::InvalidValue)
            .with_message("`tool_choice` asks for a function that is not in `tools`."))
    }
}

/// `response_format` of a chat. `None` is plain text.
pub(super) fn chat_format<'a>(value: &Value<'a, '_>) -> Result<Option<ResponseFormat<'a>>, ApiError> {
    let object = value.object()?;
    let format = match format_type(&object)? {
        FormatType::Text => None,
        FormatType::JsonObject => Some(ResponseFormat::JsonObject),
        FormatType::JsonSchema => {
            let schema = object.need("json_schema")?.object()?;
            let json_schema = json_schema(&schema)?;
            schema.finish()?;
            Some(ResponseFormat::JsonSchema { json_schema })
        }
    };
    object.finish()?;
    Ok(format)
}

/// `text.format` of a response. `None` is plain text.
pub(super) fn response_format<'a>(value: &Value<'a, '_>) -> Result<Option<ResponseFormat<'a>>, ApiError> {
    let object = value.object()?;
    let format = match format_type(&object)? {
        FormatType::Text => None,
        FormatType::JsonObject => Some(ResponseFormat::JsonObject),
        FormatType::JsonSchema => Some(ResponseFormat::JsonSchema {
            json_schema: json_schema(&object)?,
        }),
    };
    object.finish()?;
    Ok(format)
}

#[derive(Clone, Copy)]
enum FormatType {
    Text,
    JsonObject,
    JsonSchema,
}

fn format_type(object: &Object<'_, '_>) -> Result<FormatType, ApiError> {
    object.need("type")?.word(&[
        ("text", FormatType::Text),
        ("json_object", FormatType::JsonObject),
        ("json_schema", FormatType::JsonSchema),
    ])
}

fn json_schema<'a>(object: &Object<'a, '_>) -> Result<JsonSchema<'a>, ApiError> {
    object.map("description", |value| value.text_up_to(MAX_DESCRIPTION))?;
    Ok(JsonSchema {
        name: object.need("name")?.name()?,
        schema: Json::schema(&object.need("schema")?)?,
        strict: object.map("strict", |value| value.boolean())?,
    })
}

fn only_functions(object: &Object<'_, '_>) -> Result<(), ApiError> {
    let kind = object.need("type")?;
    if &*kind.text()? == "function" {
        return Ok(());
    }
    Err(kind.error(ErrorCode::UnsupportedValue).with_message(ONLY_FUNCTIONS))
}

fn function<'a>(object: Object<'a, '_>) -> Result<Tool<'a>, ApiError> {
    let parameters = match object.take("parameters") {
        Some(value) => Json::schema(&value)?,
        // OpenAI: no parameters means an empty list of them.
        None => Json::Object(vec![
            (Text::Borrowed("type"), Json::String(Text::Borrowed("object"))),
            (Text::Borrowed("properties"), Json::Object(Vec::new())),
        ]),
    };
    let tool = Tool {
        name: object.need("name")?.name()?,
        description: object.map("description", |value| value.text_up_to(MAX_DESCRIPTION))?,
        parameters,
        strict: object.map("strict", |value| value.boolean())?,
    };
    object.finish()?;
    Ok(tool)
}

fn distinct<'a>(value: &Value<'a, '_>, tools: Vec<Tool<'a>>) -> Result<Vec<Tool<'a>>, ApiError> {
    let mut names: Vec<&str> = tools.iter().map(|tool| &*tool.name).collect();
    names.sort_unstable();
    if names.array_windows().any(|[left, right]| left == right) {
        return Err(value
            .error(ErrorCode::InvalidValue)
            .with_message("Two tools have the same name."));
    }
    Ok(tools)
}
