//! Errors of the engine, mapped to the closed list. Their text is looked at and never passed on.

use super::wire::{FaultBodyWire, FaultWire};
use crate::{ApiError, ErrorCode};

/// The error for an engine's answer with a status other than 200.
pub(super) fn from_status(status: u16, body: &[u8]) -> ApiError {
    let wire = serde_json::from_slice::<FaultWire<'_>>(body).ok();
    let (kind, message) = match &wire {
        Some(FaultWire { error: Some(error), .. }) => (error.kind.as_deref(), error.message.as_deref()),
        Some(wire) => (None, wire.message.as_deref()),
        None => (None, None),
    };
    classify(status, kind.unwrap_or_default(), message.unwrap_or_default()).into()
}

/// The error that an event carries, if it carries one.
pub(super) fn from_event(data: &[u8], field: bool) -> Option<ApiError> {
    let wire = match serde_json::from_slice::<FaultWire<'_>>(data) {
        Ok(wire) => wire,
        Err(_) => return Some(ErrorCode::EngineError.into()),
    };
    let body = match wire.error {
        Some(body) => body,
        None if field || wire.object.as_deref() == Some("error") => FaultBodyWire {
            message: wire.message,
            kind: None,
            code: wire.code,
        },
        None => return None,
    };
    let status = body.code.and_then(|code| code.get().parse().ok()).unwrap_or(500);
    Some(
        classify(
            status,
            body.kind.as_deref().unwrap_or_default(),
            body.message.as_deref().unwrap_or_default(),
        )
        .into(),
    )
}

fn classify(status: u16, kind: &str, message: &str) -> ErrorCode {
    // llama.cpp: "exceed_context_size_error", and "is too large to process" with 500 for an embedding.
    // vLLM: "This model's maximum context length is ..." and "longer than the maximum model length of ...", both with 400.
    let too_long = [
        "maximum context length",
        "maximum model length",
        "context size",
        "is too large to process",
    ];
    if kind == "exceed_context_size_error"
        || (matches!(status, 400 | 413 | 422 | 500) && too_long.iter().any(|text| message.contains(text)))
    {
        return ErrorCode::ContextLengthExceeded;
    }
    match status {
        400 | 413 | 415 | 422 => ErrorCode::InvalidRequest,
        404 | 405 | 501 => ErrorCode::UnsupportedEndpoint,
        429 | 503 => ErrorCode::EngineOverloaded,
        408 | 504 => ErrorCode::EngineTimeout,
        _ => ErrorCode::EngineError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_texts_are_mapped() {
        let cases: [(u16, &str, ErrorCode); 10] = [
            (
                400,
                r#"{"error":{"code":400,"message":"request (6031 tokens) exceeds","type":"exceed_context_size_error"}}"#,
                ErrorCode::ContextLengthExceeded,
            ),
            (
                500,
                r#"{"error":{"code":500,"message":"input (6001 tokens) is too large to process. increase","type":"server_error"}}"#,
                ErrorCode::ContextLengthExceeded,
            ),
            (
                400,
                r#"{"object":"error","message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError","code":400}"#,
                ErrorCode::ContextLengthExceeded,
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"marker","type":"invalid_request_error"}}"#,
                ErrorCode::InvalidRequest,
            ),
            (404, "not json", ErrorCode::UnsupportedEndpoint),
            (501, "", ErrorCode::UnsupportedEndpoint),
            (
                503,
                r#"{"error":{"code":503,"message":"Loading model"}}"#,
                ErrorCode::EngineOverloaded,
            ),
            (500, r#"{"error":{"message":"marker"}}"#, ErrorCode::EngineError),
            (
                401,
                r#"{"error":{"message":"Invalid API Key"}}"#,
                ErrorCode::EngineError,
            ),
            (302, "", ErrorCode::EngineError),
        ];
        for (status, body, code) in cases {
            let error = from_status(status, body.as_bytes());
            assert_eq!(error.code(), code, "{status} {body}");
            assert!(!String::from_utf8(error.body()).unwrap().contains("marker"));
        }
    }

    #[test]
    fn events_with_errors_are_found() {
        let code = |data: &str, field| from_event(data.as_bytes(), field).map(|error| error.code());
        assert_eq!(
            code(r#"{"error":{"code":400,"message":"x"}}"#, false),
            Some(ErrorCode::InvalidRequest)
        );
        assert_eq!(
            code(r#"{"error":{"message":"x"}}"#, false),
            Some(ErrorCode::EngineError)
        );
        assert_eq!(
            code(r#"{"object":"error","message":"x","code":503}"#, false),
            Some(ErrorCode::EngineOverloaded)
        );
        assert_eq!(
            code(r#"{"code":400,"message":"x"}"#, true),
            Some(ErrorCode::InvalidRequest)
        );
        assert_eq!(code(r"oops", true), Some(ErrorCode::EngineError));
        assert_eq!(code(r#"{"choices":[]}"#, false), None);
    }
}
