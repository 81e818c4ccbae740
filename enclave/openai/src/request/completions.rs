//! Completions and embeddings: prompts without roles.

use std::sync::Arc;

use super::{
    Context, Dialect, Endpoint, EngineRequest, RequestMeta,
    body::{CompletionBody, EmbeddingBody, Prompt, Sampling},
    sampling,
    value::{Kind, Object, Value},
};
use crate::{
    ApiError, ErrorCode,
    limits::{MAX_INPUTS, MAX_OUTPUTS, MAX_PROMPTS, MAX_TOKENS},
    plan::{Answer, CompletionPlan, EmbeddingPlan, Plan},
    secret::write_json,
};

/// Parses the body of `/v1/completions` and writes it anew.
pub(super) fn completions<'a>(
    object: Object<'a, '_>,
    cx: &Context<'a>,
    capacity: usize,
) -> Result<EngineRequest, ApiError> {
    object.refuse("suffix", "`suffix` is not supported here.")?;
    object.refuse("best_of", "`best_of` is not supported here. Use `n`.")?;
    sampling::drop_platform_fields(&object)?;
    let streaming = sampling::streaming(&object)?;
    let echo = echo(&object, cx.dialect)?;
    // With an echo, no new token at all is a way to score a prompt.
    let min = if echo.is_some() { 0 } else { 1 };
    let max_tokens = object.map("max_tokens", |value| sampling::token_cap(&value, min))?;
    let logprobs = object.map("logprobs", |value| {
        u8::try_from(value.integer(0, 5)?).map_err(|_| value.error(ErrorCode::InvalidValue))
    })?;
    let mut sampling = Sampling {
        max_tokens,
        ..sampling::sampling(&object, cx.dialect)?
    };
    sampling::stream_into(&mut sampling, streaming.stream);
    let prompt = prompt(&object.need("prompt")?, MAX_PROMPTS)?;
    let outputs = prompt.count().saturating_mul(sampling.n);
    if outputs > MAX_OUTPUTS {
        return Err(ApiError::new(ErrorCode::RequestTooLarge).with_param("n"));
    }
    object.finish()?;

    let plan = Plan {
        served_model: cx.served_model.to_owned(),
        dialect: cx.dialect,
        stream: streaming.stream,
        include_usage: streaming.include_usage,
        answer: Answer::Completion(CompletionPlan {
            outputs,
            n: sampling.n,
            logprobs,
        }),
    };
    let vllm = cx.dialect == Dialect::Vllm;
    let mut body = super::buffer(capacity);
    write_json(
        &mut body,
        &CompletionBody {
            model: cx.served_model,
            prompt,
            sampling,
            // llama.cpp takes zero for none; what is too much is cut from the answer.
            logprobs: logprobs.map(|count| if vllm { count } else { count.max(1) }),
            echo,
            cache_salt: cx.cache_salt.filter(|_| vllm),
        },
    )?;
    Ok(EngineRequest {
        path: Endpoint::Completions.path(),
        body,
        stream: plan.stream,
        meta: RequestMeta {
            endpoint: Endpoint::Completions,
            outputs,
            max_tokens,
        },
        plan: Arc::new(plan),
    })
}

/// Parses the body of `/v1/embeddings` and writes it anew.
pub(super) fn embeddings<'a>(
    object: Object<'a, '_>,
    cx: &Context<'a>,
    capacity: usize,
) -> Result<EngineRequest, ApiError> {
    object.refuse(
        "dimensions",
        "The number of dimensions is the model's. Remove `dimensions`.",
    )?;
    sampling::drop_platform_fields(&object)?;
    let encoding = object.map("encoding_format", |value| {
        value.word(&[("float", false), ("base64", true)])
    })?;
    let base64 = encoding.unwrap_or(false);
    let value = object.need("input")?;
    let input = prompt(&value, MAX_INPUTS)?;
    if input.has_empty() {
        return Err(value
            .error(ErrorCode::InvalidValue)
            .with_message("An input must not be empty."));
    }
    object.finish()?;

    let inputs = input.count();
    let mut body = super::buffer(capacity);
    write_json(
        &mut body,
        &EmbeddingBody {
            model: cx.served_model,
            input,
            // A third of the size of decimal numbers, and exact; the filter writes what the client asked for.
            encoding_format: "base64",
        },
    )?;
    Ok(EngineRequest {
        path: Endpoint::Embeddings.path(),
        body,
        stream: false,
        meta: RequestMeta {
            endpoint: Endpoint::Embeddings,
            outputs: inputs,
            max_tokens: None,
        },
        plan: Arc::new(Plan {
            served_model: cx.served_model.to_owned(),
            dialect: cx.dialect,
            stream: false,
            include_usage: false,
            answer: Answer::Embedding(EmbeddingPlan { inputs, base64 }),
        }),
    })
}

fn echo(object: &Object<'_, '_>, dialect: Dialect) -> Result<Option<bool>, ApiError> {
    let Some(value) = object.take("echo") else {
        return Ok(None);
    };
    match (value.boolean()?, dialect) {
        (false, _) => Ok(None),
        (true, Dialect::Vllm) => Ok(Some(true)),
        // llama.cpp would leave it out in silence.
        (true, Dialect::LlamaCpp) => Err(value
            .error(ErrorCode::UnsupportedValue)
            .with_message("`echo` is not supported by this engine.")),
    }
}

/// A string, strings, tokens, or lists of tokens.
fn prompt<'a>(value: &Value<'a, '_>, max: usize) -> Result<Prompt<'a>, ApiError> {
    if value.kind() == Kind::String {
        return Ok(Prompt::Text(value.text()?));
    }
    if value.first_kind()? == Some(Kind::Number) {
        return Ok(Prompt::Tokens(value.tokens(MAX_TOKENS)?));
    }
    let items = value.array(max)?;
    if items.len() == 0 {
        return Err(value
            .error(ErrorCode::InvalidValue)
            .with_message("There must be at least one prompt."));
    }
    if value.first_kind()? == Some(Kind::Array) {
        return Ok(Prompt::TokenLists(items.map(|item| item.tokens(MAX_TOKENS))?));
    }
    Ok(Prompt::Texts(items.map(|item| item.text())?))
}
