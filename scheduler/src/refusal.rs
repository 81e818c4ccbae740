//! Every way in which the scheduler itself refuses a request: a closed list, without a word about content.

use axum::response::{IntoResponse, Response};
use cloister_scheduler_core::Rejection;
use http::{HeaderName, HeaderValue, StatusCode, header};

/// Header that holds [`Code::name`].
pub const CODE_HEADER: HeaderName = HeaderName::from_static("cloister-code");
/// Header that says `true` when a new attempt may succeed; also in what an enclave answers.
pub const RETRYABLE_HEADER: HeaderName = HeaderName::from_static("cloister-retryable");

/// Seconds in `Retry-After` of a full queue or a spent budget.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Hints beside `queue_full`, named as OpenAI names them: the proxy passes them on.
const LIMIT_HEADER: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING_HEADER: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET_HEADER: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");
/// The same as [`RETRY_AFTER`], in OpenAI's form of a duration.
const RESET: HeaderValue = HeaderValue::from_static("1s");

cloister_telemetry::labels! {
    /// Why a request was refused.
    pub enum Code("code") {
        /// No, or an unknown, outer credential.
        Unauthorized => "unauthorized",
        /// The credential is not for this tenant, or the tenant is not configured.
        UnknownTenant => "unknown_tenant",
        /// Not a message of the protocol.
        Malformed => "malformed",
        /// Another media type, or a content encoding.
        UnsupportedMediaType => "unsupported_media_type",
        /// None of the keys is known: fetch key configurations and seal again.
        UnknownKey => "unknown_key",
        /// The keys were erased, or are about to be, before a lease came: seal again.
        WindowEnded => "window_ended",
        /// The tenant's queue is full or its budget spent.
        QueueFull => "queue_full",
        /// The time to live ended first.
        Expired => "expired",
        /// A candidate failed before it had the whole body, which is too large to have been kept for another: send again.
        TooLargeToRetry => "too_large_to_retry",
        /// No candidate can be reached, or took the whole request.
        CandidateUnavailable => "candidate_unavailable",
        /// The enclave refused; it does not say why.
        Refused => "refused",
        /// The enclave failed or was silent when it had the whole request, and may have run it; or it answered outside the protocol.
        UpstreamFailed => "upstream_failed",
    }
}

/// A refusal: becomes status, headers and `{"code", "retryable"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: Code,
    /// Whether a new attempt, sealed anew if need be, may succeed.
    pub retryable: bool,
    /// Requests that the tenant may have waiting, when its queue is full.
    pub limit: Option<usize>,
}

// === impl Code ===

impl Code {
    /// As it stands in header and body.
    #[must_use]
    pub fn name(self) -> &'static str {
        cloister_telemetry::labels::Label::value(self)
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::UnknownTenant => StatusCode::FORBIDDEN,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::UnknownKey | Self::WindowEnded => StatusCode::CONFLICT,
            Self::QueueFull => StatusCode::TOO_MANY_REQUESTS,
            Self::Expired => StatusCode::REQUEST_TIMEOUT,
            Self::TooLargeToRetry | Self::CandidateUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::UpstreamFailed => StatusCode::BAD_GATEWAY,
        }
    }

    fn is_retryable(self) -> bool {
        match self {
            Self::UnknownKey
            | Self::WindowEnded
            | Self::QueueFull
            | Self::TooLargeToRetry
            | Self::CandidateUnavailable => true,
            Self::Unauthorized
            | Self::UnknownTenant
            | Self::Malformed
            | Self::UnsupportedMediaType
            | Self::Expired
            | Self::Refused
            | Self::UpstreamFailed => false,
        }
    }
}

// === impl Refusal ===

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self {
            code,
            retryable: code.is_retryable(),
            limit: None,
        }
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        let code = match rejection {
            Rejection::QueueFull => Code::QueueFull,
            Rejection::Expired => Code::Expired,
            Rejection::WindowEnded => Code::WindowEnded,
            Rejection::UnknownKey => Code::UnknownKey,
            Rejection::CandidateUnavailable => Code::CandidateUnavailable,
        };
        code.into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { code, retryable, limit } = self;
        let flag = if retryable { "true" } else { "false" };
        let body = format!(r#"{{"code":"{}","retryable":{flag}}}"#, code.name());
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (CODE_HEADER, HeaderValue::from_static(code.name())),
            (RETRYABLE_HEADER, HeaderValue::from_static(flag)),
        ];
        let mut response = (code.status(), headers, body).into_response();
        if code == Code::QueueFull {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if let Some(limit) = limit {
            let headers = response.headers_mut();
            headers.insert(LIMIT_HEADER, HeaderValue::from(limit));
            headers.insert(REMAINING_HEADER, HeaderValue::from(0));
            headers.insert(RESET_HEADER, RESET);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use cloister_telemetry::labels::Label;

    use super::*;

    #[test]
    fn a_refusal_says_its_code_thrice_and_nothing_else() {
        let response = Refusal::from(Code::QueueFull).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[CODE_HEADER], "queue_full");
        assert_eq!(response.headers()[RETRYABLE_HEADER], "true");
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers().len(), 4);
    }

    #[test]
    fn a_full_queue_says_how_long_it_is() {
        let limit = Some(7);
        let refusal = Refusal {
            limit,
            ..Code::QueueFull.into()
        };
        let response = refusal.into_response();
        assert_eq!(response.headers()[LIMIT_HEADER], "7");
        assert_eq!(response.headers()[REMAINING_HEADER], "0");
        assert_eq!(response.headers()[RESET_HEADER], "1s");
        assert_eq!(response.headers().len(), 7);
    }

    #[test]
    fn what_may_have_run_is_not_for_another_attempt() {
        assert!(!Refusal::from(Code::UpstreamFailed).retryable);
        assert!(Refusal::from(Code::CandidateUnavailable).retryable);
    }

    #[test]
    fn names_are_distinct() {
        let mut names = Code::VALUES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 12);
    }
}
