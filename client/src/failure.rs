//! Why a call could not be answered: a closed list of codes, the only thing about an error that leaves the proxy.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// One row a code: variant, name, HTTP status.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident => $name:literal, $status:literal;)+) => {
        /// Closed list of reasons. [`Code::as_str`] is the `code` of OpenAI's error object.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)+
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The `code` of the error object.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The HTTP status that OpenAI's clients expect for this kind of error.
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$variant => $status,)+
                }
            }
        }
    };
}

codes! {
    // -- the caller of the proxy
    /// No API key, or one that is not in the key file.
    InvalidApiKey => "invalid_api_key", 401;
    /// The `Host` header names something other than this machine while no API keys are configured.
    ForbiddenHost => "forbidden_host", 403;
    /// Malformed JSON, a duplicate key, a wrong type.
    InvalidRequest => "invalid_request", 400;
    /// A parameter that Cloister refuses on purpose, such as `store`.
    UnsupportedParameter => "unsupported_parameter", 400;
    /// A model that the configuration does not name.
    ModelNotFound => "model_not_found", 404;
    /// A path that is not part of the served API.
    NotFound => "not_found", 404;
    /// A known path with another method.
    MethodNotAllowed => "method_not_allowed", 405;
    /// The body is over the limit.
    RequestTooLarge => "request_too_large", 413;
    /// Not `application/json`, or with a content encoding.
    UnsupportedMediaType => "unsupported_media_type", 415;
    /// The body did not arrive in time.
    RequestTimeout => "request_timeout", 408;
    /// The proxy has its configured number of calls in flight.
    TooManyCalls => "too_many_calls", 429;

    // -- the scheduler
    /// The scheduler does not accept the outer bearer token.
    OuterTokenRefused => "outer_token_refused", 401;
    /// The scheduler does not know this tenant, or the token does not cover it.
    TenantRefused => "tenant_refused", 403;
    /// The scheduler's queue for this tenant is full.
    RateLimitExceeded => "rate_limit_exceeded", 429;
    /// The sealing keys were replaced while the request waited, more often than it was retried.
    KeysReplaced => "keys_replaced", 503;
    /// The request waited longer than its time to live.
    QueueTimeout => "queue_timeout", 504;
    /// No candidate could take the request.
    EnclaveUnavailable => "enclave_unavailable", 503;
    /// The enclave refused the sealed request. It says no more to anyone outside.
    EnclaveRefused => "enclave_refused", 502;
    /// The scheduler failed, or answered outside the protocol.
    UpstreamFailed => "upstream_failed", 502;

    // -- reaching and trusting an enclave
    /// The endpoint does not accept connections, or TLS failed.
    EndpointUnreachable => "endpoint_unreachable", 503;
    /// The upstream did not answer, or went silent, for longer than configured.
    UpstreamTimeout => "upstream_timeout", 504;
    /// The evidence of every offered enclave was refused by this proxy's own policy.
    AttestationRefused => "attestation_refused", 503;
    /// The scheduler offers no usable key of this model.
    NoEnclave => "no_enclave", 503;
    /// The member credential is missing, unreadable, expired or for something else.
    CredentialUnusable => "credential_unusable", 401;

    // -- the answer
    /// The answer ended without its authenticated end.
    AnswerTruncated => "answer_truncated", 502;
    /// The answer does not authenticate, or its receipt does not match.
    AnswerNotAuthentic => "answer_not_authentic", 502;
    /// The answer is over the buffering limit.
    AnswerTooLarge => "answer_too_large", 502;
    /// The enclave says, sealed, that the engine failed.
    EngineFailed => "engine_failed", 502;
    /// The enclave says, sealed, that the engine took too long.
    EngineTimeout => "engine_timeout", 504;
    /// The enclave says, sealed, that the request has been preempted or the replica is stopping.
    Interrupted => "interrupted", 503;
    /// Something that should not happen in the proxy itself.
    Internal => "internal_error", 500;
}

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
    /// Whether the same call may succeed when sent again, and provably did not run: no enclave took it, or the enclave says
    /// that it was preempted.
    pub retryable: bool,
    /// Whether the call may have run, or may still be running, and only its answer is lost. A new attempt may succeed, and may run
    /// the call a second time: who asks for that decides about it.
    pub may_have_run: bool,
    /// How long to wait before that.
    pub retry_after: Option<Duration>,
    /// The parameter at fault.
    pub param: Option<&'static str>,
    /// Rate-limit hints, with [`Code::RateLimitExceeded`].
    pub rate_limit: Option<RateLimit>,
}

// === impl Code ===

impl Code {
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
            may_have_run: false,
            retry_after: None,
            param: None,
            rate_limit: None,
        }
    }

    /// A failure after which nobody here knows whether the call ran.
    pub fn uncertain(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            may_have_run: true,
            ..Self::new(code, message)
        }
    }

    /// A failure that may pass, of a call that did not run.
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
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
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
