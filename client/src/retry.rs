//! Bounded retries, each with a new seal and a new request id, and only while the client has seen nothing.
//!
//! A sealed request is opened at most once, but each retry is another sealed request: it runs again. So only what provably did
//! not run is tried again, unless the configuration says otherwise.

use crate::backend::{Answer, Attempt, Call, Piece};
use crate::failure::{Code, Failure};
use bytes::BytesMut;
use futures::StreamExt;
use std::time::Duration;

/// Largest answer that is buffered because it is not streamed, bytes. An embedding batch is the largest in practice.
pub const MAX_BUFFERED_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// How often and how fast to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, at least 1.
    pub attempts: u32,
    /// Upper bound of the wait before the second attempt; it doubles with each.
    pub base: Duration,
    /// Upper bound of every wait. A scheduler that asks for a longer one is not retried here: its answer goes to the client.
    pub max: Duration,
    /// Whether a call is tried again, too, that may have run: after a timeout, a connection or an answer that broke off, or an engine
    /// that failed. Each attempt may then cost a whole generation.
    pub after_execution: bool,
}

/// A whole answer, verified to its end.
#[derive(PartialEq, Eq)]
pub struct Complete {
    /// HTTP status.
    pub status: u16,
    /// Media type.
    pub content_type: String,
    /// The body.
    pub body: bytes::Bytes,
}

impl RetryPolicy {
    /// The wait before attempt `next` (2 for the first retry): full jitter, at least what the scheduler asked for.
    ///
    /// `random` is uniform over all `u32`. `None` when the scheduler asks for more than [`RetryPolicy::max`].
    pub fn wait(&self, next: u32, asked: Option<Duration>, random: u32) -> Option<Duration> {
        let doublings = next.saturating_sub(2).min(16);
        let ceiling = self.base.saturating_mul(1_u32 << doublings).min(self.max);
        let jittered = ceiling.mul_f64(f64::from(random) / f64::from(u32::MAX));
        match asked {
            Some(asked) if asked > self.max => None,
            Some(asked) => Some(asked.saturating_add(jittered).min(self.max.max(asked))),
            None => Some(jittered),
        }
    }
}

/// Answers a call with the head of a stream, trying again while it is allowed.
///
/// # Errors
///
/// The failure of the last attempt.
pub async fn head<A: Attempt + ?Sized>(backend: &A, policy: &RetryPolicy, call: &Call) -> Result<Answer, Failure> {
    let mut tried = 1;
    loop {
        match backend.attempt(call).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => tried = pause(policy, tried, failure).await?,
        }
    }
}

/// Answers a call as a whole. Nothing reaches the client before the end, so a cut answer can be tried again too.
///
/// # Errors
///
/// The failure of the last attempt.
pub async fn whole<A: Attempt + ?Sized>(backend: &A, policy: &RetryPolicy, call: &Call) -> Result<Complete, Failure> {
    let mut tried = 1;
    loop {
        let outcome = match backend.attempt(call).await {
            Ok(answer) => collect(answer).await,
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(complete) => return Ok(complete),
            Err(failure) => tried = pause(policy, tried, failure).await?,
        }
    }
}

/// Buffers an answer up to its verified end.
///
/// # Errors
///
/// The answer fails, is cut, or is over [`MAX_BUFFERED_ANSWER_BYTES`].
pub async fn collect(mut answer: Answer) -> Result<Complete, Failure> {
    let mut body = BytesMut::new();
    while let Some(piece) = answer.pieces.next().await {
        match piece? {
            Piece::Data(data) => {
                if body.len().saturating_add(data.len()) > MAX_BUFFERED_ANSWER_BYTES {
                    return Err(Failure::new(
                        Code::AnswerTooLarge,
                        "the answer is over 64 MiB: ask for less, or for a stream",
                    ));
                }
                body.extend_from_slice(&data);
            }
            Piece::End => {
                return Ok(Complete {
                    status: answer.status,
                    content_type: answer.content_type,
                    body: body.freeze(),
                });
            }
        }
    }
    Err(truncated())
}

/// An answer that ends without its end.
pub fn truncated() -> Failure {
    Failure::uncertain(
        Code::AnswerTruncated,
        "the answer was cut off before its authenticated end: do not use what arrived, send the request again",
    )
}

/// Waits before the next attempt, or gives the failure back. Returns the number of the next attempt.
async fn pause(policy: &RetryPolicy, tried: u32, failure: Failure) -> Result<u32, Failure> {
    let allowed = failure.retryable || (failure.may_have_run && policy.after_execution);
    if !allowed || tried >= policy.attempts {
        return Err(failure);
    }
    let next = tried.saturating_add(1);
    let Some(wait) = policy.wait(next, failure.retry_after, crate::random::u32()) else {
        return Err(failure);
    };
    tracing::debug!(code = failure.code.as_str(), attempt = next, "retrying");
    tokio::time::sleep(wait).await;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Script, Step, call};

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 3,
        base: Duration::from_millis(100),
        max: Duration::from_secs(2),
        after_execution: false,
    };
    const AGAIN: RetryPolicy = RetryPolicy {
        after_execution: true,
        ..POLICY
    };

    fn passing() -> Failure {
        Failure::retryable(Code::EnclaveUnavailable, "busy")
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_bounded() {
        let script = Script::new((0..10).map(|_| Step::Fail(passing())));
        assert_eq!(head(&script, &POLICY, &call()).await.err(), Some(passing()));
        assert_eq!(script.attempts(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_help_is_not_tried_again() {
        let failure = Failure::new(Code::EnclaveRefused, "no");
        let script = Script::new([Step::Fail(failure.clone()), Step::answer("late")]);
        assert_eq!(head(&script, &POLICY, &call()).await.err(), Some(failure));
        assert_eq!(script.attempts(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_run_is_tried_again_only_if_configured() {
        let lost = Failure::uncertain(Code::UpstreamTimeout, "silent");
        let script = || Script::new([Step::Fail(lost.clone()), Step::cut("half"), Step::answer("whole")]);
        let once = script();
        assert_eq!(whole(&once, &POLICY, &call()).await.err(), Some(lost.clone()));
        assert_eq!(head(&script(), &POLICY, &call()).await.err(), Some(lost.clone()));
        assert_eq!(once.attempts(), 1);
        let again = script();
        let complete = whole(&again, &AGAIN, &call()).await.unwrap();
        assert_eq!((&complete.body[..], again.attempts()), (&b"whole"[..], 3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_end_is_an_error() {
        for (policy, attempts) in [(&POLICY, 1), (&AGAIN, 3)] {
            let script = Script::new((0..3).map(|_| Step::cut("half")));
            let failure = whole(&script, policy, &call()).await.err().unwrap();
            assert_eq!(failure.code, Code::AnswerTruncated);
            assert_eq!(script.attempts(), attempts);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_huge_answer_is_refused() {
        let step = Step::pieces((0..65).map(|_| vec![b'x'; 1024 * 1024]));
        let failure = whole(&Script::new([step]), &POLICY, &call()).await.err().unwrap();
        assert_eq!(failure.code, Code::AnswerTooLarge);
    }

    #[test]
    fn waits_grow_to_the_bound_and_heed_the_scheduler() {
        let full = u32::MAX;
        assert_eq!(POLICY.wait(2, None, full), Some(Duration::from_millis(100)));
        assert_eq!(POLICY.wait(3, None, full), Some(Duration::from_millis(200)));
        assert_eq!(POLICY.wait(60, None, full), Some(Duration::from_secs(2)));
        assert_eq!(POLICY.wait(2, None, 0), Some(Duration::ZERO));
        let second = Duration::from_secs(1);
        assert_eq!(POLICY.wait(2, Some(second), 0), Some(second));
        assert_eq!(POLICY.wait(2, Some(Duration::from_secs(3)), 0), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_retry_after_goes_to_the_client() {
        let mut failure = Failure::retryable(Code::RateLimitExceeded, "full");
        failure.retry_after = Some(Duration::from_secs(60));
        let script = Script::new([Step::Fail(failure.clone()), Step::answer("late")]);
        assert_eq!(head(&script, &POLICY, &call()).await.err(), Some(failure));
    }
}
