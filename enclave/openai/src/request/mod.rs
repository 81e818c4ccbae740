//! Requests: from the decrypted body to the body for the engine.

mod body;
mod chat;
mod completions;
mod forced;
mod json;
mod media;
mod message;
mod responses;
mod sampling;
mod tools;
mod value;

use std::sync::Arc;

use serde_json::value::RawValue;
use zeroize::Zeroizing;

use self::value::{Kind, Path, Value};
use crate::{ApiError, ErrorCode, FilterOptions, ResponseFilter, limits::MAX_BODY, plan::Plan};

/// What a client may call. All of them are `POST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/v1/chat/completions`
    ChatCompletions,
    /// `/v1/responses`, translated to chat completions for every engine.
    Responses,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
}

impl Endpoint {
    /// The endpoint of a path without query.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownUrl`] for anything but the four exact paths.
    pub fn from_path(path: &str) -> Result<Self, ApiError> {
        match path {
            "/v1/chat/completions" => Ok(Self::ChatCompletions),
            "/v1/responses" => Ok(Self::Responses),
            "/v1/completions" => Ok(Self::Completions),
            "/v1/embeddings" => Ok(Self::Embeddings),
            _ => Err(ErrorCode::UnknownUrl.into()),
        }
    }

    /// The path as clients call it.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
        }
    }
}

/// Which engine the body is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// llama.cpp's server.
    LlamaCpp,
    /// vLLM's OpenAI server, and what speaks like it.
    Vllm,
}

/// What the enclave knows and the client does not choose.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The engine that will read the body.
    pub dialect: Dialect,
    /// The only model name that is served.
    pub served_model: &'a str,
    /// Whether the model takes images.
    pub vision: bool,
    /// Scope of the engine's prefix cache; sent to vLLM only. A secret of the enclave: never the client's.
    pub cache_salt: Option<&'a str>,
}

/// Numbers about a request that limits and accounting need; no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestMeta {
    /// The endpoint that the client called.
    pub endpoint: Endpoint,
    /// How many answers the engine makes: prompts times `n`; for embeddings the number of inputs.
    pub outputs: usize,
    /// The client's limit of output tokens for each answer.
    pub max_tokens: Option<u32>,
}

/// The request as the engine gets it, always `POST` with `content-type: application/json`.
pub struct EngineRequest {
    /// Path at the engine; not always the client's.
    pub path: &'static str,
    /// JSON body, written by this crate from parsed values.
    pub body: Zeroizing<Vec<u8>>,
    /// Whether the client gets server-sent events.
    pub stream: bool,
    /// Numbers for limits and accounting.
    pub meta: RequestMeta,
    plan: Arc<Plan>,
}

impl EngineRequest {
    /// The filter for the engine's answer to this request. `status` is the engine's HTTP status.
    #[must_use]
    pub fn response_filter(&self, status: u16, options: FilterOptions) -> ResponseFilter {
        ResponseFilter::new(Arc::clone(&self.plan), status, options)
    }
}

/// Parses a request and writes it anew for the engine.
///
/// # Errors
/// An [`ApiError`] that names the parameter at fault and never its value.
pub fn sanitize(endpoint: Endpoint, body: &[u8], cx: &Context<'_>) -> Result<EngineRequest, ApiError> {
    if body.len() > MAX_BODY {
        return Err(ErrorCode::RequestTooLarge.into());
    }
    let text = std::str::from_utf8(body).map_err(|_| ErrorCode::InvalidJson)?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|_| ErrorCode::InvalidJson)?;
    let root = Value::new(raw, Path::Root);
    if root.kind() != Kind::Object {
        return Err(ErrorCode::InvalidJson.into());
    }
    let object = root.object()?;
    let model = object.need("model")?;
    if *model.text()? != *cx.served_model {
        return Err(model.error(ErrorCode::ModelNotFound));
    }
    let capacity = body.len();
    match endpoint {
        Endpoint::ChatCompletions => {
            let chat = chat::parse(&object, cx)?;
            object.finish()?;
            chat.write(cx, capacity, None)
        }
        Endpoint::Responses => {
            let (chat, response) = responses::parse(&object, cx)?;
            object.finish()?;
            chat.write(cx, capacity, Some(response))
        }
        Endpoint::Completions => completions::completions(object, cx, capacity),
        Endpoint::Embeddings => completions::embeddings(object, cx, capacity),
    }
}

/// A buffer for the body that rarely has to grow: what is added is short, and escapes only get shorter.
fn buffer(capacity: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(capacity.saturating_add(1024)))
}
