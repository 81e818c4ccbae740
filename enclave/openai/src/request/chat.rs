//! Chat completions, which responses become too.

use std::sync::Arc;

use super::{
    Context, Dialect, Endpoint, EngineRequest, RequestMeta,
    body::{ChatBody, Message, ResponseFormat, Sampling, Tool, ToolChoice},
    forced, message, sampling, tools,
    value::Object,
};
use crate::{
    ApiError, ErrorCode,
    plan::{Answer, ChatPlan, Plan, ResponsePlan},
    secret::write_json,
};

/// A chat as parsed, before it is written for a dialect.
pub(super) struct Chat<'a> {
    pub(super) messages: Vec<Message<'a>>,
    pub(super) sampling: Sampling<'a>,
    /// How many alternatives the client wants per token; none means no logprobs.
    pub(super) logprobs: Option<u8>,
    pub(super) format: Option<ResponseFormat<'a>>,
    pub(super) tools: Vec<Tool<'a>>,
    pub(super) choice: Option<ToolChoice<'a>>,
    pub(super) parallel: Option<bool>,
    pub(super) effort: Option<&'static str>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

/// Parses the body of `/v1/chat/completions`; `model` is taken already.
pub(super) fn parse<'a>(object: &Object<'a, '_>, cx: &Context<'_>) -> Result<Chat<'a>, ApiError> {
    refuse(object)?;
    sampling::drop_platform_fields(object)?;
    sampling::metadata(object)?;
    sampling::refuse_store(object)?;
    verbosity(object)?;
    let streaming = sampling::streaming(object)?;
    let tools = object
        .map("tools", |value| tools::chat_tools(&value))?
        .unwrap_or_default();
    let choice = object.map("tool_choice", |value| tools::choice(&value, &tools, false))?;
    Ok(Chat {
        messages: message::messages(&object.need("messages")?, cx.vision)?,
        sampling: Sampling {
            max_tokens: max_tokens(object)?,
            ..sampling::sampling(object, cx.dialect)?
        },
        logprobs: logprobs(object)?,
        format: object
            .map("response_format", |value| tools::chat_format(&value))?
            .flatten(),
        tools,
        choice,
        parallel: object.map("parallel_tool_calls", |value| value.boolean())?,
        effort: object.map("reasoning_effort", |value| value.word(&EFFORTS))?.flatten(),
        stream: streaming.stream,
        include_usage: streaming.include_usage,
    })
}

/// OpenAI's words for effort and what vLLM is told; it knows three of them.
pub(super) const EFFORTS: [(&str, Option<&str>); 7] = [
    ("none", None),
    ("minimal", Some("low")),
    ("low", Some("low")),
    ("medium", Some("medium")),
    ("high", Some("high")),
    ("xhigh", Some("high")),
    ("max", Some("high")),
];

impl<'a> Chat<'a> {
    /// Writes the chat for the engine. `response` makes the answer one of `/v1/responses`.
    pub(super) fn write(
        mut self,
        cx: &Context<'a>,
        capacity: usize,
        response: Option<ResponsePlan>,
    ) -> Result<EngineRequest, ApiError> {
        let forced = match cx.dialect {
            Dialect::LlamaCpp => forced::apply(&mut self)?,
            Dialect::Vllm => None,
        };
        let outputs = self.sampling.n;
        let plan = ChatPlan {
            choices: outputs,
            top_logprobs: self.logprobs,
            forced,
        };
        let meta = RequestMeta {
            endpoint: if response.is_some() {
                Endpoint::Responses
            } else {
                Endpoint::ChatCompletions
            },
            outputs,
            max_tokens: self.sampling.max_tokens,
        };
        let plan = Plan {
            served_model: cx.served_model.to_owned(),
            dialect: cx.dialect,
            stream: self.stream,
            include_usage: self.include_usage,
            answer: match response {
                Some(response) => Answer::Response(plan, response),
                None => Answer::Chat(plan),
            },
        };
        let mut body = super::buffer(capacity);
        write_json(&mut body, &self.into_body(cx))?;
        Ok(EngineRequest {
            path: Endpoint::ChatCompletions.path(),
            body,
            stream: plan.stream,
            meta,
            plan: Arc::new(plan),
        })
    }

    fn into_body(mut self, cx: &Context<'a>) -> ChatBody<'a> {
        sampling::stream_into(&mut self.sampling, self.stream);
        let vllm = cx.dialect == Dialect::Vllm;
        let has_tools = !self.tools.is_empty();
        ChatBody {
            model: cx.served_model,
            messages: self.messages,
            sampling: self.sampling,
            logprobs: self.logprobs.map(|_| true),
            // llama.cpp takes an absent or zero count for its own default of many; what is too much is cut from the answer.
            top_logprobs: self.logprobs.map(|top| if vllm { top } else { top.max(1) }),
            response_format: self.format,
            tools: self.tools,
            tool_choice: self.choice.filter(|_| has_tools),
            parallel_tool_calls: self.parallel.filter(|_| has_tools),
            reasoning_effort: self.effort.filter(|_| vllm),
            cache_salt: cx.cache_salt.filter(|_| vllm),
        }
    }
}

/// `verbosity` is a hint for OpenAI's own models; checked and dropped.
pub(super) fn verbosity(object: &Object<'_, '_>) -> Result<(), ApiError> {
    object.map("verbosity", |value| {
        value.word(&[("low", ()), ("medium", ()), ("high", ())])
    })?;
    Ok(())
}

fn refuse(object: &Object<'_, '_>) -> Result<(), ApiError> {
    const NO_AUDIO: &str = "Audio is not supported here.";
    const NO_FUNCTIONS: &str = "`functions` and `function_call` are not supported here. Use `tools` and `tool_choice`.";
    object.refuse("audio", NO_AUDIO)?;
    object.refuse("functions", NO_FUNCTIONS)?;
    object.refuse("function_call", NO_FUNCTIONS)?;
    object.refuse("prediction", "Predicted outputs are not supported here.")?;
    object.refuse(
        "web_search_options",
        "The enclave reaches no network, so there is no web search.",
    )?;
    object.refuse("moderation", "Moderation is not supported here.")?;
    object.map("modalities", |value| {
        value.array(1)?.map(|item| item.word(&[("text", ())]))
    })?;
    Ok(())
}

fn max_tokens(object: &Object<'_, '_>) -> Result<Option<u32>, ApiError> {
    let old = object.map("max_tokens", |value| sampling::token_cap(&value, 1))?;
    let Some(value) = object.take("max_completion_tokens") else {
        return Ok(old);
    };
    let new = sampling::token_cap(&value, 1)?;
    match old {
        Some(old) if old != new => Err(value
            .error(ErrorCode::InvalidValue)
            .with_message("`max_tokens` and `max_completion_tokens` differ. Send one of them.")),
        _ => Ok(Some(new)),
    }
}

fn logprobs(object: &Object<'_, '_>) -> Result<Option<u8>, ApiError> {
    let wanted = object.map("logprobs", |value| value.boolean())?.unwrap_or(false);
    let Some(value) = object.take("top_logprobs") else {
        return Ok(wanted.then_some(0));
    };
    let top = top_logprobs(&value)?;
    match (wanted, top) {
        (true, top) => Ok(Some(top)),
        (false, 0) => Ok(None),
        (false, _) => Err(value
            .error(ErrorCode::InvalidValue)
            .with_message("`top_logprobs` is only allowed with `logprobs: true`.")),
    }
}

/// How many alternatives per token, at most 20 as at OpenAI.
pub(super) fn top_logprobs(value: &super::value::Value<'_, '_>) -> Result<u8, ApiError> {
    u8::try_from(value.integer(0, 20)?).map_err(|_| value.error(ErrorCode::InvalidValue))
}
