//! Fields that chat, responses and completions share.

use super::{
    Dialect,
    body::{LogitBias, Sampling, StreamOptions},
    value::{Kind, Object, Value},
};
use crate::{
    ApiError, ErrorCode,
    limits::{
        MAX_ID, MAX_LOGIT_BIAS, MAX_METADATA, MAX_METADATA_VALUE, MAX_N, MAX_NAME, MAX_STOP, MAX_STOPS, MAX_TOKEN,
    },
    secret::Text,
};

/// What the client asked of the stream.
pub(super) struct Streaming {
    pub(super) stream: bool,
    /// Whether the client wants to see the usage.
    pub(super) include_usage: bool,
}

/// Temperature and top-p, which every generating endpoint has.
pub(super) fn randomness(object: &Object<'_, '_>) -> Result<Sampling<'static>, ApiError> {
    Ok(Sampling {
        temperature: object.map("temperature", |value| value.number(0.0, 2.0))?,
        top_p: object.map("top_p", |value| value.number(0.0, 1.0))?,
        n: 1,
        ..Sampling::default()
    })
}

/// The fields that chat and completions have in common.
pub(super) fn sampling<'a>(object: &Object<'a, '_>, dialect: Dialect) -> Result<Sampling<'a>, ApiError> {
    let n = object.map("n", |value| value.integer(1, MAX_N))?.unwrap_or(1);
    let seed = object.map("seed", |value| value.integer(i64::MIN, i64::MAX))?;
    Ok(Sampling {
        presence_penalty: object.map("presence_penalty", |value| value.number(-2.0, 2.0))?,
        frequency_penalty: object.map("frequency_penalty", |value| value.number(-2.0, 2.0))?,
        seed: seed.map(|seed| engine_seed(seed, dialect)),
        stop: object.map("stop", |value| stops(&value))?.unwrap_or_default(),
        logit_bias: object
            .map("logit_bias", |value| logit_bias(&value))?
            .unwrap_or_default(),
        n: usize::try_from(n).unwrap_or(1),
        ..randomness(object)?
    })
}

/// `stream` and `stream_options`.
pub(super) fn streaming(object: &Object<'_, '_>) -> Result<Streaming, ApiError> {
    let stream = object.map("stream", |value| value.boolean())?.unwrap_or(false);
    let mut include_usage = false;
    if let Some(value) = object.take("stream_options") {
        if !stream {
            return Err(value
                .error(ErrorCode::InvalidValue)
                .with_message("`stream_options` is only allowed with `stream: true`."));
        }
        let options = value.object()?;
        include_usage = options.map("include_usage", |value| value.boolean())?.unwrap_or(false);
        // Obfuscation hides sizes from who sees TLS records; here the sealed session pads.
        options.map("include_obfuscation", |value| value.boolean())?;
        options.finish()?;
    }
    Ok(Streaming { stream, include_usage })
}

/// A cap of output tokens.
pub(super) fn token_cap(value: &Value<'_, '_>, min: i64) -> Result<u32, ApiError> {
    let cap = value.integer(min, MAX_TOKEN)?;
    u32::try_from(cap).map_err(|_| value.error(ErrorCode::InvalidValue))
}

/// What the engine is told about the stream.
pub(super) fn stream_into(sampling: &mut Sampling<'_>, stream: bool) {
    sampling.stream = stream;
    sampling.stream_options = stream.then_some(StreamOptions { include_usage: true });
}

/// Takes what OpenAI's platform uses for itself and what means nothing here. Types are checked, values dropped.
pub(super) fn drop_platform_fields(object: &Object<'_, '_>) -> Result<(), ApiError> {
    for name in [
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "service_tier",
        "prompt_cache_retention",
    ] {
        object.map(name, |value| value.text_up_to(MAX_ID))?;
    }
    Ok(())
}

/// `metadata`: at most 16 short strings.
pub(super) fn metadata<'a>(object: &Object<'a, '_>) -> Result<Vec<(Text<'a>, Text<'a>)>, ApiError> {
    let Some(value) = object.take("metadata") else {
        return Ok(Vec::new());
    };
    let (entries, at) = value.object()?.into_entries();
    if entries.len() > MAX_METADATA || entries.iter().any(|(name, _)| name.len() > MAX_NAME) {
        return Err(value.error(ErrorCode::RequestTooLarge));
    }
    let entry = |(name, raw)| Ok((name, Value::new(raw, at).text_up_to(MAX_METADATA_VALUE)?));
    entries.into_iter().map(entry).collect()
}

/// Refuses `store: true`: nothing is kept here.
pub(super) fn refuse_store(object: &Object<'_, '_>) -> Result<(), ApiError> {
    match object.take("store") {
        Some(value) if value.boolean()? => Err(value
            .error(ErrorCode::UnsupportedValue)
            .with_message("Nothing is stored here. Set `store` to false or leave it out.")),
        _ => Ok(()),
    }
}

/// llama.cpp's seeds have 32 bits and the largest one means "any".
fn engine_seed(seed: i64, dialect: Dialect) -> i64 {
    match dialect {
        Dialect::LlamaCpp => seed.rem_euclid(i64::from(u32::MAX)),
        Dialect::Vllm => seed,
    }
}

fn stops<'a>(value: &Value<'a, '_>) -> Result<Vec<Text<'a>>, ApiError> {
    let one = |value: &Value<'a, '_>| {
        let text = value.text_up_to(MAX_STOP)?;
        if text.is_empty() {
            Err(value.error(ErrorCode::InvalidValue))
        } else {
            Ok(text)
        }
    };
    match value.kind() {
        Kind::String => Ok(vec![one(value)?]),
        _ => value.array(MAX_STOPS)?.map(|item| one(&item)),
    }
}

fn logit_bias(value: &Value<'_, '_>) -> Result<LogitBias, ApiError> {
    let (entries, at) = value.object()?.into_entries();
    if entries.len() > MAX_LOGIT_BIAS {
        return Err(value.error(ErrorCode::RequestTooLarge));
    }
    let entry = |(token, raw): (Text<'_>, _)| {
        // llama.cpp would take a name that is no number for text to be tokenised.
        let digits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit());
        let token = token
            .parse()
            .ok()
            .filter(|token| digits && i64::from(*token) <= MAX_TOKEN);
        let token: u32 = token.ok_or_else(|| value.error(ErrorCode::InvalidValue))?;
        Ok((token, Value::new(raw, at).number(-100.0, 100.0)?))
    };
    entries.into_iter().map(entry).collect::<Result<_, _>>().map(LogitBias)
}
