//! The bodies that engines get: every field that can reach an engine is named in this file.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::json::Json;
use crate::secret::Text;

/// Body of `/v1/chat/completions`.
#[derive(Serialize)]
pub(crate) struct ChatBody<'a> {
    pub(crate) model: &'a str,
    pub(crate) messages: Vec<Message<'a>>,
    #[serde(flatten)]
    pub(crate) sampling: Sampling<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_logprobs: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response_format: Option<ResponseFormat<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_choice: Option<ToolChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parallel_tool_calls: Option<bool>,
    /// vLLM only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning_effort: Option<&'static str>,
    /// vLLM only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_salt: Option<&'a str>,
}

/// Body of `/v1/completions`.
#[derive(Serialize)]
pub(crate) struct CompletionBody<'a> {
    pub(crate) model: &'a str,
    pub(crate) prompt: Prompt<'a>,
    #[serde(flatten)]
    pub(crate) sampling: Sampling<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logprobs: Option<u8>,
    /// vLLM only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) echo: Option<bool>,
    /// vLLM only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_salt: Option<&'a str>,
}

/// Body of `/v1/embeddings`.
#[derive(Serialize)]
pub(crate) struct EmbeddingBody<'a> {
    pub(crate) model: &'a str,
    pub(crate) input: Prompt<'a>,
    pub(crate) encoding_format: &'static str,
}

/// How the next token is drawn and how many there are.
#[derive(Default, Serialize)]
pub(crate) struct Sampling<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) stop: Vec<Text<'a>>,
    #[serde(skip_serializing_if = "LogitBias::is_empty")]
    pub(crate) logit_bias: LogitBias,
    #[serde(skip_serializing_if = "is_one")]
    pub(crate) n: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream_options: Option<StreamOptions>,
}

/// Bias per token id.
#[derive(Default)]
pub(crate) struct LogitBias(pub(crate) Vec<(u32, f64)>);

/// Usage is always asked for: it is counted even where the client does not see it.
#[derive(Serialize)]
pub(crate) struct StreamOptions {
    pub(crate) include_usage: bool,
}

/// One message of a chat.
#[derive(Serialize)]
pub(crate) struct Message<'a> {
    pub(crate) role: Role,
    pub(crate) content: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tool_calls: Vec<ToolCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_call_id: Option<Text<'a>>,
}

/// Who speaks. `developer` is written as `system`: chat templates of open models know no other name for it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// What is said.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Content<'a> {
    Text(Text<'a>),
    Parts(Vec<Part<'a>>),
}

/// One part of what is said.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Part<'a> {
    Text { text: Text<'a> },
    ImageUrl { image_url: ImageUrl<'a> },
}

/// An image; always a checked `data:` URI.
#[derive(Serialize)]
pub(crate) struct ImageUrl<'a> {
    pub(crate) url: Text<'a>,
}

/// A call that the model made earlier.
pub(crate) struct ToolCall<'a> {
    pub(crate) id: Text<'a>,
    pub(crate) name: Text<'a>,
    pub(crate) arguments: Text<'a>,
}

/// A function that the model may call.
pub(crate) struct Tool<'a> {
    pub(crate) name: Text<'a>,
    pub(crate) description: Option<Text<'a>>,
    pub(crate) parameters: Json<'a>,
    pub(crate) strict: Option<bool>,
}

/// Whether and what the model has to call.
pub(crate) enum ToolChoice<'a> {
    None,
    Auto,
    Required,
    Function(Text<'a>),
}

/// The form of the answer.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ResponseFormat<'a> {
    JsonObject,
    JsonSchema { json_schema: JsonSchema<'a> },
}

/// A schema that the answer must keep to.
#[derive(Serialize)]
pub(crate) struct JsonSchema<'a> {
    pub(crate) name: Text<'a>,
    pub(crate) schema: Json<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) strict: Option<bool>,
}

/// Texts or tokens to go on from or to embed.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Prompt<'a> {
    Text(Text<'a>),
    Texts(Vec<Text<'a>>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

// === impl Prompt ===

impl Prompt<'_> {
    /// Whether one of the texts is empty.
    pub(crate) fn has_empty(&self) -> bool {
        match self {
            Prompt::Text(text) => text.is_empty(),
            Prompt::Texts(texts) => texts.iter().any(|text| text.is_empty()),
            Prompt::Tokens(_) | Prompt::TokenLists(_) => false,
        }
    }

    /// How many prompts there are.
    pub(crate) fn count(&self) -> usize {
        match self {
            Prompt::Text(_) | Prompt::Tokens(_) => 1,
            Prompt::Texts(texts) => texts.len(),
            Prompt::TokenLists(lists) => lists.len(),
        }
    }
}

// === impl LogitBias ===

impl LogitBias {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for LogitBias {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(token, bias)| (token, bias)))
    }
}

// === impl ToolCall ===

impl Serialize for ToolCall<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Function<'a> {
            name: &'a str,
            arguments: &'a str,
        }
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("type", "function")?;
        map.serialize_entry(
            "function",
            &Function {
                name: &self.name,
                arguments: &self.arguments,
            },
        )?;
        map.end()
    }
}

// === impl Tool ===

impl<'a> Tool<'a> {
    /// What the model is shown of it: name, description and parameters.
    pub(crate) fn function(&self) -> impl Serialize + '_ {
        #[derive(Serialize)]
        struct Function<'t, 'a> {
            name: &'t str,
            #[serde(skip_serializing_if = "Option::is_none")]
            description: Option<&'t str>,
            parameters: &'t Json<'a>,
        }
        Function {
            name: &self.name,
            description: self.description.as_deref(),
            parameters: &self.parameters,
        }
    }
}

impl Serialize for Tool<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("type", "function")?;
        map.serialize_entry("function", &self.function())?;
        map.end()
    }
}

// === impl ToolChoice ===

impl Serialize for ToolChoice<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Function<'a> {
            name: &'a str,
        }
        match self {
            ToolChoice::None => serializer.serialize_str("none"),
            ToolChoice::Auto => serializer.serialize_str("auto"),
            ToolChoice::Required => serializer.serialize_str("required"),
            ToolChoice::Function(name) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("type", "function")?;
                map.serialize_entry("function", &Function { name })?;
                map.end()
            }
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_one(n: &usize) -> bool {
    *n == 1
}
