//! Errors of the OpenAI surface: a closed list of codes, never a copy of anyone's text.

use serde::Serialize;

/// Why a request is refused or an answer is not given. The wire name is [`ErrorCode::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The body is not one JSON object.
    InvalidJson,
    /// A parameter has the wrong JSON type.
    InvalidType,
    /// A parameter is outside its documented range or form.
    InvalidValue,
    /// A required parameter is absent.
    MissingParameter,
    /// A parameter that is not on the allow-list.
    UnknownParameter,
    /// The same name appears twice in one object.
    DuplicateParameter,
    /// A parameter of OpenAI's API that this deployment does not offer.
    UnsupportedParameter,
    /// A value of OpenAI's API that this deployment does not offer.
    UnsupportedValue,
    /// Media that is remote, of an unknown type, damaged, or sent to a model without vision.
    UnsupportedMedia,
    /// The model is not the one that this enclave serves.
    ModelNotFound,
    /// No such path or method.
    UnknownUrl,
    /// The body, or one of its counts or lengths, is over its documented cap.
    RequestTooLarge,
    /// Prompt and requested output do not fit the model's context.
    ContextLengthExceeded,
    /// The engine refused the request as invalid.
    InvalidRequest,
    /// The engine does not offer this endpoint for this model.
    UnsupportedEndpoint,
    /// The engine has no room at the moment.
    EngineOverloaded,
    /// The engine failed.
    EngineError,
    /// The engine did not answer in time.
    EngineTimeout,
    /// The engine's answer ended before it was complete.
    EngineIncomplete,
    /// The request was ended before its answer was complete, because the engine had to be given up.
    RequestInterrupted,
    /// The request was refused by a limit of the enclave.
    RateLimitExceeded,
}

impl ErrorCode {
    /// Every code, for tables and tests.
    pub const ALL: [ErrorCode; 21] = [
        ErrorCode::InvalidJson,
        ErrorCode::InvalidType,
        ErrorCode::InvalidValue,
        ErrorCode::MissingParameter,
        ErrorCode::UnknownParameter,
        ErrorCode::DuplicateParameter,
        ErrorCode::UnsupportedParameter,
        ErrorCode::UnsupportedValue,
        ErrorCode::UnsupportedMedia,
        ErrorCode::ModelNotFound,
        ErrorCode::UnknownUrl,
        ErrorCode::RequestTooLarge,
        ErrorCode::ContextLengthExceeded,
        ErrorCode::InvalidRequest,
        ErrorCode::UnsupportedEndpoint,
        ErrorCode::EngineOverloaded,
        ErrorCode::EngineError,
        ErrorCode::EngineTimeout,
        ErrorCode::EngineIncomplete,
        ErrorCode::RequestInterrupted,
        ErrorCode::RateLimitExceeded,
    ];

    /// The `code` of the error body.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorCode::InvalidJson => "invalid_json",
            ErrorCode::InvalidType => "invalid_type",
            ErrorCode::InvalidValue => "invalid_value",
            ErrorCode::MissingParameter => "missing_required_parameter",
            ErrorCode::UnknownParameter => "unknown_parameter",
            ErrorCode::DuplicateParameter => "duplicate_parameter",
            ErrorCode::UnsupportedParameter => "unsupported_parameter",
            ErrorCode::UnsupportedValue => "unsupported_value",
            ErrorCode::UnsupportedMedia => "unsupported_media",
            ErrorCode::ModelNotFound => "model_not_found",
            ErrorCode::UnknownUrl => "unknown_url",
            ErrorCode::RequestTooLarge => "request_too_large",
            ErrorCode::ContextLengthExceeded => "context_length_exceeded",
            ErrorCode::InvalidRequest => "invalid_request",
            ErrorCode::UnsupportedEndpoint => "unsupported_endpoint",
            ErrorCode::EngineOverloaded => "engine_overloaded",
            ErrorCode::EngineError => "engine_error",
            ErrorCode::EngineTimeout => "engine_timeout",
            ErrorCode::EngineIncomplete => "engine_incomplete",
            ErrorCode::RequestInterrupted => "request_interrupted",
            ErrorCode::RateLimitExceeded => "rate_limit_exceeded",
        }
    }

    /// The HTTP status that goes with the code.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            ErrorCode::ModelNotFound | ErrorCode::UnknownUrl => 404,
            ErrorCode::RequestTooLarge => 413,
            ErrorCode::RateLimitExceeded => 429,
            ErrorCode::EngineError | ErrorCode::EngineIncomplete => 500,
            ErrorCode::EngineOverloaded | ErrorCode::RequestInterrupted => 503,
            ErrorCode::EngineTimeout => 504,
            _ => 400,
        }
    }

    /// The `type` of the error body, one of OpenAI's.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self.status() {
            429 => "rate_limit_error",
            500..=599 => "server_error",
            _ => "invalid_request_error",
        }
    }

    const fn message(self) -> &'static str {
        match self {
            ErrorCode::InvalidJson => "The body must be one JSON object.",
            ErrorCode::InvalidType => "This has the wrong type.",
            ErrorCode::InvalidValue => "This value is not allowed.",
            ErrorCode::MissingParameter => "This is required and missing.",
            ErrorCode::UnknownParameter => "This parameter is not known here. Remove it.",
            ErrorCode::DuplicateParameter => "This name appears twice in one object.",
            ErrorCode::UnsupportedParameter => "This parameter is not supported here. Remove it.",
            ErrorCode::UnsupportedValue => "This value is not supported here.",
            ErrorCode::UnsupportedMedia => {
                "Media must be a base64 `data:` URI of a PNG, JPEG, WebP or GIF image, sent to a model with vision."
            }
            ErrorCode::ModelNotFound => {
                "The model does not exist here. List the models to see the name that is served."
            }
            ErrorCode::UnknownUrl => "No such path or method.",
            ErrorCode::RequestTooLarge => "This is over a size limit.",
            ErrorCode::ContextLengthExceeded => {
                "The prompt and the requested output do not fit the model's context. Shorten them."
            }
            ErrorCode::InvalidRequest => {
                "The engine refused the request: a parameter, a schema or the order of the messages does not suit the model."
            }
            ErrorCode::UnsupportedEndpoint => "The model does not offer this endpoint.",
            ErrorCode::EngineOverloaded => "The engine has no room at the moment. Try again later.",
            ErrorCode::EngineError => "The engine failed. Try again.",
            ErrorCode::EngineTimeout => "The engine did not answer in time. Try again.",
            ErrorCode::EngineIncomplete => "The engine's answer ended before it was complete. Try again.",
            ErrorCode::RequestInterrupted => "The request was interrupted before its answer was complete. Try again.",
            ErrorCode::RateLimitExceeded => "Too many requests. Try again later.",
        }
    }
}

/// A refusal or failure in OpenAI's format.
///
/// The message is chosen from fixed texts; `param` names where the fault is and never holds a value. `Display` and `Debug` give the
/// code alone, since even the name of an unknown parameter was written by the client.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", code.as_str())]
pub struct ApiError {
    code: ErrorCode,
    detail: Option<&'static str>,
    param: Option<String>,
}

// === impl ApiError ===

impl ApiError {
    /// An error with the code's own message and no parameter.
    #[must_use]
    pub const fn new(code: ErrorCode) -> Self {
        Self {
            code,
            detail: None,
            param: None,
        }
    }

    /// Replaces the message by a more helpful fixed text.
    #[must_use]
    pub const fn with_message(mut self, message: &'static str) -> Self {
        self.detail = Some(message);
        self
    }

    /// Names the parameter, for example `messages[2].content`. It must never hold a value of the request.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// The parameter that is at fault.
    #[must_use]
    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.code.status()
    }

    /// The JSON body of the answer: `{"error":{"message","type","param","code"}}`.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: Body<'a>,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            message: &'a str,
            r#type: &'a str,
            param: Option<&'a str>,
            code: &'a str,
        }
        // Clients print the message alone, so it names the parameter too.
        let text = self.detail.unwrap_or(self.code.message());
        let message = self
            .param
            .as_ref()
            .map_or_else(|| text.to_owned(), |param| format!("`{param}`: {text}"));
        let error = Body {
            message: &message,
            r#type: self.code.kind(),
            param: self.param.as_deref(),
            code: self.code.as_str(),
        };
        // Strings cannot fail to serialise into memory; an empty body would still be an error by its status.
        serde_json::to_vec(&Envelope { error }).unwrap_or_default()
    }

    /// The same body as one server-sent event, for a stream whose head is already out.
    #[must_use]
    pub fn sse_event(&self) -> Vec<u8> {
        let mut event = b"data: ".to_vec();
        event.extend_from_slice(&self.body());
        event.extend_from_slice(b"\n\n");
        event
    }
}

impl std::fmt::Debug for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ApiError").field(&self.code).finish()
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_openais() {
        let error = ApiError::new(ErrorCode::UnknownParameter).with_param("id_slot");
        assert_eq!(error.status(), 400);
        assert_eq!(
            String::from_utf8(error.body()).unwrap(),
            r#"{"error":{"message":"`id_slot`: This parameter is not known here. Remove it.","type":"invalid_request_error","param":"id_slot","code":"unknown_parameter"}}"#
        );
    }

    #[test]
    fn display_and_debug_name_the_code_alone() {
        let error = ApiError::new(ErrorCode::UnknownParameter).with_param("marker");
        assert_eq!(error.to_string(), "unknown_parameter");
        assert_eq!(format!("{error:?}"), "ApiError(UnknownParameter)");
    }

    #[test]
    fn codes_are_distinct_and_have_an_error_status() {
        let names: std::collections::BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        assert!(ErrorCode::ALL.iter().all(|code| code.status() >= 400));
    }
}
