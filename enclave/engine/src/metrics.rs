//! The few numbers that are read from an engine's Prometheus text.

use crate::error::EngineError;

/// Sum of a metric over every set of labels; none when it is not there.
///
/// # Errors
/// When a sample of it is not a finite, non-negative number: an engine that cannot count is not idle.
pub(crate) fn sum(text: &str, name: &str) -> Result<Option<f64>, EngineError> {
    let mut total = None;
    for line in text.lines() {
        let Some(rest) = line.trim_start().strip_prefix(name) else {
            continue;
        };
        let value = match rest.chars().next() {
            Some('{') => after_labels(rest),
            Some(' ' | '\t') => Some(rest),
            // The name of another metric begins with this one.
            _ => continue,
        };
        let value = value
            .and_then(|text| text.split_whitespace().next())
            .and_then(|text| text.parse::<f64>().ok())
            .filter(|value| value.is_finite() && *value >= 0.0)
            .ok_or(EngineError::Malformed {
                route: "/metrics",
                reason: "a sample is not a number",
            })?;
        total = Some(total.unwrap_or(0.0) + value);
    }
    Ok(total)
}

/// A count that must be there.
///
/// # Errors
/// As [`sum`], and when the metric is missing: silence is no evidence.
pub(crate) fn count(text: &str, name: &str) -> Result<u64, EngineError> {
    let value = sum(text, name)?.ok_or(EngineError::Malformed {
        route: "/metrics",
        reason: "a metric is missing",
    })?;
    // Rounded up: half a request is one.
    Ok(value.ceil().min(u64::MAX as f64) as u64)
}

/// What follows the labels. A label's value is quoted and may hold braces.
fn after_labels(rest: &str) -> Option<&str> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return rest.get(at.saturating_add(1)..),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP vllm:num_requests_running x\n# TYPE vllm:num_requests_running gauge\n\
        vllm:num_requests_running{engine=\"0\",model_name=\"a} 9 \\\"b\"} 1.0\n\
        vllm:num_requests_running{engine=\"1\",model_name=\"a\"} 2.0 1700000000\n\
        vllm:num_requests_running_total 7\nllamacpp:requests_processing 3\nbad NaN\nminus -1\nopen{x=\"\n";

    #[test]
    fn samples_are_summed_over_labels() {
        assert_eq!(count(TEXT, "vllm:num_requests_running").expect("a count"), 3);
        assert_eq!(count(TEXT, "llamacpp:requests_processing").expect("a count"), 3);
    }

    #[test]
    fn what_is_missing_or_not_a_number_is_an_error() {
        assert!(count(TEXT, "vllm:num_requests_waiting").is_err());
        assert_eq!(sum(TEXT, "vllm:num_requests_waiting").expect("none"), None);
        for name in ["bad", "minus", "open"] {
            assert!(sum(TEXT, name).is_err(), "{name}");
        }
    }
}
