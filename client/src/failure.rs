//! Why a call could not be answered: a closed list of codes, the only thing about an error that leaves the proxy.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Closed list of reasons. [`Code::as_str`] is the `code` of OpenAI's error object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    // -- the caller of the proxy
    /// No API key, or one that is not in the key file.
    InvalidApiKey,
    /// The `Host` header names something other than this machine while no API keys are configured.
    ForbiddenHost,
    /// Malformed JSON, a duplicate key, a wrong type.
    InvalidRequest,
    /// A parameter that Cloister refuses on purpose, such as `store`.
    UnsupportedParameter,
    /// A model that the configuration does not name.
    ModelNotFound,
    /// A path that is not part of the served API.
    NotFound,
    /// A known path with another method.
    MethodNotAllowed,
    /// The body is over the limit.
    RequestTooLarge,
    /// Not `application/json`, or with a content encoding.
    UnsupportedMediaType,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The proxy has its configured number of calls in flight.
    TooManyCalls,

    // -- the scheduler
    /// The scheduler does not accept the outer bearer token.
    OuterTokenRefused,
    /// The scheduler does not know this tenant, or the token does not cover it.
    TenantRefused,
    /// The scheduler's queue for this tenant is full.
    RateLimitExceeded,
    /// The sealing keys were replaced while the request waited, more often than it was retried.
    KeysReplaced,
    /// The request waited longer than its time to live.
    QueueTimeout,
    /// No candidate could take the request.
    EnclaveUnavailable,
    /// The enclave refused the sealed request. It says no more to anyone outside.
    EnclaveRefused,
    /// The scheduler failed, or answered outside the protocol.
    UpstreamFailed,

    // -- reaching and trusting an enclave
    /// The endpoint does not accept connections, or TLS failed.
    EndpointUnreachable,
    /// The upstream did not answer, or went silent, for longer than configured.
    UpstreamTimeout,
    /// The evidence of every offered enclave was refused by this proxy's own policy.
    AttestationRefused,
    /// The scheduler offers no usable key of this model.
    NoEnclave,
    /// The member credential is missing, unreadable, expired or for something else.
    CredentialUnusable,

    // -- the answer
    /// The answer ended without its authenticated end.
    AnswerTruncated,
    /// The answer does not authenticate, or its receipt does not match.
    AnswerNotAuthentic,
    /// The answer is over the buffering limit.
    AnswerTooLarge,
    /// The enclave says, sealed, that the engine failed.
    EngineFailed,
    /// The enclave says, sealed, that the engine took too long.
    EngineTimeout,
    /// The enclave says, sealed, that the request has been preempted or the replica is stopping.
    Interrupted,
    /// The enclave says, sealed, that the engine has no room now.
    EngineOverloaded,
    /// Something that should not happen in the proxy itself.
    Internal,
}

/// All codes, for documentation and tests.
pub const CODES: [Code; 31] = [
    Code::InvalidApiKey,
    Code::ForbiddenHost,
    Code::InvalidRequest,
    Code::UnsupportedParameter,
    Code::ModelNotFound,
    Code::NotFound,
    Code::MethodNotAllowed,
    Code::RequestTooLarge,
    Code::UnsupportedMediaType,
    Code::RequestTimeout,
    Code::TooManyCalls,
    Code::OuterTokenRefused,
    Code::TenantRefused,
    Code::RateLimitExceeded,
    Code::KeysReplaced,
    Code::QueueTimeout,
    Code::EnclaveUnavailable,
    Code::EnclaveRefused,
    Code::UpstreamFailed,
    Code::EndpointUnreachable,
    Code::UpstreamTimeout,
    Code::AttestationRefused,
    Code::NoEnclave,
    Code::CredentialUnusable,
    Code::AnswerTruncated,
    Code::AnswerNotAuthentic,
    Code::AnswerTooLarge,
    Code::EngineFailed,
    Code::EngineTimeout,
    Code::Interrupted,
    Code::EngineOverloaded,
];

/// Rate-limit hints of a 429, from the scheduler's headers. They are unauthenticated, so they are only numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests that may wait or run at once.
    pub limit: Option<u64>,
    /// Requests left.
    pub remaining: Option<u64>,
    /// Time until there is room.
    pub reset: Option<Duration>,
}

/// A call that could not be answered. The message is written for the user of the proxy and never holds content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason.
    pub code: Code,
    /// What failed, where, and what to do.
    pub message: Cow<'static, str>,
    /// Whether the same call may succeed when sent again.
    pub retryable: bool,
    /// How long to wait before that.
    pub retry_after: Option<Duration>,
    /// The parameter at fault.
    pub param: Option<&'static str>,
    /// Rate-limit hints, with [`Code::RateLimitExceeded`].
    pub rate_limit: Option<RateLimit>,
}

// === impl Code ===

impl Code {
    /// The `code` of the error object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidApiKey => "invalid_api_key",
            Self::ForbiddenHost => "forbidden_host",
            Self::InvalidRequest => "invalid_request",
            Self::UnsupportedParameter => "unsupported_parameter",
            Self::ModelNotFound => "model_not_found",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTooLarge => "request_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RequestTimeout => "request_timeout",
            Self::TooManyCalls => "too_many_calls",
            Self::OuterTokenRefused => "outer_token_refused",
            Self::TenantRefused => "tenant_refused",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::KeysReplaced => "keys_replaced",
            Self::QueueTimeout => "queue_timeout",
            Self::EnclaveUnavailable => "enclave_unavailable",
            Self::EnclaveRefused => "enclave_refused",
            Self::UpstreamFailed => "upstream_failed",
            Self::EndpointUnreachable => "endpoint_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::AttestationRefused => "attestation_refused",
            Self::NoEnclave => "no_enclave",
            Self::CredentialUnusable => "credential_unusable",
            Self::AnswerTruncated => "answer_truncated",
            Self::AnswerNotAuthentic => "answer_not_authentic",
            Self::AnswerTooLarge => "answer_too_large",
            Self::EngineFailed => "engine_failed",
            Self::EngineTimeout => "engine_timeout",
            Self::Interrupted => "interrupted",
            Self::EngineOverloaded => "engine_overloaded",
            Self::Internal => "internal_error",
        }
    }

    /// The HTTP status that OpenAI's clients expect for this kind of error.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidApiKey | Self::OuterTokenRefused | Self::CredentialUnusable => 401,
            Self::ForbiddenHost | Self::TenantRefused => 403,
            Self::InvalidRequest | Self::UnsupportedParameter => 400,
            Self::ModelNotFound | Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::RequestTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::RateLimitExceeded | Self::TooManyCalls => 429,
            Self::Internal => 500,
            Self::UpstreamFailed
            | Self::EnclaveRefused
            | Self::AnswerTruncated
            | Self::AnswerNotAuthentic
            | Self::AnswerTooLarge
            | Self::EngineFailed => 502,
            Self::KeysReplaced
            | Self::EnclaveUnavailable
            | Self::EndpointUnreachable
            | Self::AttestationRefused
            | Self::NoEnclave
            | Self::Interrupted
            | Self::EngineOverloaded => 503,
            Self::QueueTimeout | Self::UpstreamTimeout | Self::EngineTimeout => 504,
        }
    }

    /// The `type` of the error object.
    pub fn kind(self) -> &'static str {
        match self.status() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            status if status < 500 => "invalid_request_error",
            _ => "server_error",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Failure ===

impl Failure {
    /// A failure that the same call would meet again.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            retryable: false,
            retry_after: None,
            param: None,
            rate_limit: None,
        }
    }

    /// A failure that may pass.
    pub fn retryable(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            retryable: true,
            ..Self::new(code, message)
        }
    }

    /// Names the parameter at fault.
    #[must_use]
    pub fn with_param(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_distinct_and_have_an_error_status() {
        let names: HashSet<_> = CODES.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), CODES.len());
        for code in CODES {
            assert!((400..600).contains(&code.status()), "{code}");
        }
    }

    #[test]
    fn kinds_follow_the_status() {
        assert_eq!(Code::InvalidApiKey.kind(), "authentication_error");
        assert_eq!(Code::RateLimitExceeded.kind(), "rate_limit_error");
        assert_eq!(Code::ModelNotFound.kind(), "invalid_request_error");
        assert_eq!(Code::AnswerTruncated.kind(), "server_error");
        assert_eq!(Code::TenantRefused.kind(), "permission_error");
    }
}
