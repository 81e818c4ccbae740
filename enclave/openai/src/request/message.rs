//! Messages of a chat.

use super::{
    body::{Content, ImageUrl, Message, Part, Role, ToolCall},
    media,
    value::{Kind, Object, Value},
};
use crate::{
    ApiError, ErrorCode,
    limits::{MAX_ID, MAX_IMAGES, MAX_MESSAGES, MAX_PARTS, MAX_TOOL_CALLS},
    secret::Text,
};

/// Which images may come, and how many have.
pub(super) struct Images {
    vision: bool,
    seen: usize,
}

/// The messages of a chat, at least one.
pub(super) fn messages<'a>(value: &Value<'a, '_>, vision: bool) -> Result<Vec<Message<'a>>, ApiError> {
    let mut images = Images::new(vision);
    let messages = value.array(MAX_MESSAGES)?.map(|item| message(&item, &mut images))?;
    if messages.is_empty() {
        return Err(value
            .error(ErrorCode::InvalidValue)
            .with_message("There must be at least one message."));
    }
    Ok(messages)
}

/// A message that has nothing but text.
pub(super) fn plain(role: Role, content: Content<'_>) -> Message<'_> {
    Message {
        role,
        content: Some(content),
        name: None,
        tool_calls: Vec::new(),
        tool_call_id: None,
    }
}

fn message<'a>(value: &Value<'a, '_>, images: &mut Images) -> Result<Message<'a>, ApiError> {
    let object = value.object()?;
    let role = object.need("role")?;
    let message = match &*role.text()? {
        "system" | "developer" => {
            let content = text_content(&object.need("content")?)?;
            Message {
                name: name(&object)?,
                ..plain(Role::System, content)
            }
        }
        "user" => {
            let content = user_content(&object.need("content")?, images)?;
            Message {
                name: name(&object)?,
                ..plain(Role::User, content)
            }
        }
        "assistant" => assistant(&object)?,
        "tool" => Message {
            tool_call_id: Some(object.need("tool_call_id")?.text_up_to(MAX_ID)?),
            ..plain(Role::Tool, text_content(&object.need("content")?)?)
        },
        _ => return Err(role.error(ErrorCode::UnsupportedValue)),
    };
    object.finish()?;
    Ok(message)
}

fn assistant<'a>(object: &Object<'a, '_>) -> Result<Message<'a>, ApiError> {
    let tool_calls = object.map("tool_calls", |value| {
        value.array(MAX_TOOL_CALLS)?.map(|item| tool_call(&item))
    })?;
    let tool_calls = tool_calls.unwrap_or_default();
    let content = object.map("content", |value| assistant_content(&value))?;
    let refusal = object.map("refusal", |value| value.text())?;
    let content = content.or(refusal.map(Content::Text));
    if content.is_none() && tool_calls.is_empty() {
        object.need("content")?;
    }
    // Clients send back what they were answered. Reasoning is not shown to a model again.
    object.map("reasoning_content", |value| value.text())?;
    for echoed in ["annotations", "audio", "function_call"] {
        object.map(echoed, |value| value.empty())?;
    }
    Ok(Message {
        role: Role::Assistant,
        content,
        name: name(object)?,
        tool_calls,
        tool_call_id: None,
    })
}

fn name<'a>(object: &Object<'a, '_>) -> Result<Option<Text<'a>>, ApiError> {
    object.map("name", |value| value.name())
}

fn tool_call<'a>(value: &Value<'a, '_>) -> Result<ToolCall<'a>, ApiError> {
    let object = value.object()?;
    object.need("type")?.word(&[("function", ())])?;
    // Deltas carry an index, and clients that assemble them keep it.
    object.map("index", |value| value.integer(0, i64::MAX))?;
    let function = object.need("function")?.object()?;
    let call = ToolCall {
        id: object.need("id")?.text_up_to(MAX_ID)?,
        name: function.need("name")?.name()?,
        arguments: function.need("arguments")?.text()?,
    };
    function.finish()?;
    object.finish()?;
    Ok(call)
}

fn text_content<'a>(value: &Value<'a, '_>) -> Result<Content<'a>, ApiError> {
    content(value, |kind, part| match kind {
        "text" => Ok(Part::Text {
            text: part.need("text")?.text()?,
        }),
        _ => Err(part.need("type")?.error(ErrorCode::UnsupportedValue)),
    })
}

fn assistant_content<'a>(value: &Value<'a, '_>) -> Result<Content<'a>, ApiError> {
    content(value, |kind, part| match kind {
        "text" => Ok(Part::Text {
            text: part.need("text")?.text()?,
        }),
        "refusal" => Ok(Part::Text {
            text: part.need("refusal")?.text()?,
        }),
        _ => Err(part.need("type")?.error(ErrorCode::UnsupportedValue)),
    })
}

fn user_content<'a>(value: &Value<'a, '_>, images: &mut Images) -> Result<Content<'a>, ApiError> {
    content(value, |kind, part| match kind {
        "text" => Ok(Part::Text {
            text: part.need("text")?.text()?,
        }),
        "image_url" => {
            let image = part.need("image_url")?.object()?;
            let url = images.image(&image.need("url")?)?;
            detail(&image)?;
            image.finish()?;
            Ok(Part::ImageUrl {
                image_url: ImageUrl { url },
            })
        }
        _ => Err(part
            .need("type")?
            .error(ErrorCode::UnsupportedValue)
            .with_message(ONLY_TEXT_AND_IMAGES)),
    })
}

/// The reason for which audio, files and videos are refused.
pub(super) const ONLY_TEXT_AND_IMAGES: &str = "Only text and images are supported as parts of a message here.";

/// A string or an array of parts, each read by `part` and then finished.
pub(super) fn content<'a>(
    value: &Value<'a, '_>,
    mut part: impl FnMut(&str, &Object<'a, '_>) -> Result<Part<'a>, ApiError>,
) -> Result<Content<'a>, ApiError> {
    if value.kind() == Kind::String {
        return Ok(Content::Text(value.text()?));
    }
    let parts = value.array(MAX_PARTS)?.map(|item| {
        let object = item.object()?;
        let kind = object.need("type")?.text()?;
        let read = part(&kind, &object)?;
        object.finish()?;
        Ok(read)
    })?;
    if parts.is_empty() {
        return Err(value
            .error(ErrorCode::InvalidValue)
            .with_message("There must be at least one part."));
    }
    Ok(Content::Parts(parts))
}

/// `detail` of an image is a hint for OpenAI's own models; checked and dropped.
pub(super) fn detail(object: &Object<'_, '_>) -> Result<(), ApiError> {
    object.map("detail", |value| {
        value.word(&[("auto", ()), ("low", ()), ("high", ()), ("original", ())])
    })?;
    Ok(())
}

// === impl Images ===

impl Images {
    pub(super) fn new(vision: bool) -> Self {
        Self { vision, seen: 0 }
    }

    /// Checks one more image.
    pub(super) fn image<'a>(&mut self, value: &Value<'a, '_>) -> Result<Text<'a>, ApiError> {
        self.seen = self.seen.saturating_add(1);
        if self.seen > MAX_IMAGES {
            return Err(value.error(ErrorCode::RequestTooLarge));
        }
        media::image(value, self.vision)
    }
}
