//! OpenAI's error format.

use crate::failure::Failure;
use crate::openai::Endpoint;
use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

/// OpenAI's SDKs retry by themselves and look at this header first: `false`, too, when the call may have run.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// `{"error": {"message", "type", "param", "code"}}`
pub fn error_body(failure: &Failure) -> Value {
    json!({ "error": error_object(failure) })
}

/// The error as a server-sent event, for a stream whose status is already out.
///
/// The Responses API has an event type of its own for errors; its clients look at `event` or at `error`, so both are there.
pub fn error_event(endpoint: Endpoint, failure: &Failure) -> Bytes {
    let event = match endpoint {
        Endpoint::Responses => {
            let body = json!({
                "type": "error",
                "code": failure.code.as_str(),
                "message": failure.message,
                "param": failure.param,
                "error": error_object(failure),
            });
            format!("event: error\ndata: {body}\n\n")
        }
        _ => format!("data: {}\n\n", error_body(failure)),
    };
    Bytes::from(event)
}

/// The error as a whole answer, with the headers that clients use to decide about a retry.
pub fn error_response(failure: &Failure) -> Response<Body> {
    let mut response = Response::new(Body::from(error_body(failure).to_string()));
    *response.status_mut() = StatusCode::from_u16(failure.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let should_retry = if failure.retryable { "true" } else { "false" };
    headers.insert(SHOULD_RETRY, HeaderValue::from_static(should_retry));
    if let Some(wait) = failure.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    if failure.code.status() == 429 {
        let rate = failure.rate_limit.unwrap_or_default();
        if let Some(limit) = rate.limit {
            headers.insert(LIMIT, HeaderValue::from(limit));
        }
        headers.insert(REMAINING, HeaderValue::from(rate.remaining.unwrap_or(0)));
        if let Some(reset) = rate.reset.or(failure.retry_after) {
            let text = format!("{}s", whole_seconds(reset));
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(RESET, value);
            }
        }
    }
    response
}

fn error_object(failure: &Failure) -> Value {
    json!({
        "message": failure.message,
        "type": failure.code.kind(),
        "param": failure.param,
        "code": failure.code.as_str(),
    })
}

/// Rounded up, so that nobody comes back too early.
fn whole_seconds(duration: Duration) -> u64 {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() > 0 {
        seconds.saturating_add(1)
    } else {
        seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Code, RateLimit};

    #[test]
    fn body_has_the_four_fields() {
        let failure = Failure::new(Code::ModelNotFound, "no such model").with_param("model");
        assert_eq!(
            error_body(&failure),
            json!({"error": {"message": "no such model", "type": "invalid_request_error",
                             "param": "model", "code": "model_not_found"}})
        );
    }

    #[test]
    fn rate_limit_headers_only_with_429() {
        let mut failure = Failure::retryable(Code::RateLimitExceeded, "full");
        failure.retry_after = Some(Duration::from_millis(1500));
        failure.rate_limit = Some(RateLimit {
            limit: Some(8),
            remaining: None,
            reset: None,
        });
        let response = error_response(&failure);
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(response.headers()[LIMIT], "8");
        assert_eq!(response.headers()[REMAINING], "0");
        assert_eq!(response.headers()[RESET], "2s");
        assert_eq!(response.headers()[SHOULD_RETRY], "true");

        let lost = error_response(&Failure::uncertain(Code::UpstreamTimeout, "silent"));
        assert_eq!(lost.headers()[SHOULD_RETRY], "false", "it may have run");

        let response = error_response(&Failure::new(Code::NoEnclave, "none"));
        assert!(!response.headers().contains_key(REMAINING));
        assert_eq!(response.headers()[SHOULD_RETRY], "false");
    }

    #[test]
    fn events_end_with_a_blank_line_and_hold_the_error() {
        let failure = Failure::new(Code::AnswerTruncated, "cut");
        for endpoint in Endpoint::ALL {
            let event = error_event(endpoint, &failure);
            let text = std::str::from_utf8(&event).unwrap();
            assert!(text.ends_with("\n\n"));
            let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
            let value: Value = serde_json::from_str(data).unwrap();
            assert_eq!(value["error"]["code"], "answer_truncated");
        }
    }
}
