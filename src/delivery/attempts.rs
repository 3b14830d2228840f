//! How often and for how long a provider is tried. The calls have no token by which a provider
//! could tell a repeated one, so this is the only place that repeats them.

use std::{future::Future, time::Duration};

use rand::RngExt;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{model::delivery_state::FailureReason, secret::os_rng};

/// The time limits for one message on one channel.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The time for all attempts.
    pub total: Duration,
    /// The time for one attempt by AWS. A webhook may take the total.
    pub aws_attempt: Duration,
    /// The upper limit of the first backoff. It doubles with each attempt, up to a second.
    pub first_backoff: Duration,
    /// How long an outcome is written again and again while DynamoDB is unavailable. A message
    /// whose outcome is not stored is sent once more.
    pub store_outcome: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(5),
            aws_attempt: Duration::from_secs(3),
            first_backoff: Duration::from_millis(100),
            store_outcome: Duration::from_secs(10),
        }
    }
}

const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AttemptError {
    pub reason: FailureReason,
    /// The provider's own code, without anything of the message. Empty if there is none.
    pub provider_code: String,
    /// Whether another attempt may succeed.
    pub is_transient: bool,
}

impl AttemptError {
    pub fn transient(reason: FailureReason, provider_code: impl Into<String>) -> Self {
        Self { reason, provider_code: provider_code.into(), is_transient: true }
    }

    /// No further attempt helps.
    pub fn last(reason: FailureReason, provider_code: impl Into<String>) -> Self {
        Self { reason, provider_code: provider_code.into(), is_transient: false }
    }
}

/// Makes attempts until one succeeds, one fails for good, or `total` is over. An attempt that takes
/// longer than `each` is given up. The error is that of the last attempt that had its full time.
pub(super) async fn with_attempts<T, F>(
    total: Duration,
    each: Duration,
    first_backoff: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, AttemptError>
where
    F: Future<Output = Result<T, AttemptError>>,
{
    let end = Instant::now() + total;
    let mut backoff = first_backoff;
    let mut earlier = None;
    loop {
        let full_time = Instant::now() + each;
        let result = timeout_at(end.min(full_time), attempt()).await;
        let error = match result {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error,
            Err(_) => {
                let timed_out = AttemptError::transient(FailureReason::TimedOut, "");
                earlier.filter(|_| end < full_time).unwrap_or(timed_out)
            }
        };
        let wait = jittered(backoff);
        if !error.is_transient || Instant::now() + wait >= end {
            return Err(error);
        }
        earlier = Some(error);
        sleep(wait).await;
        backoff = MAX_BACKOFF.min(backoff * 2);
    }
}

/// A time between half of `backoff` and all of it.
pub(super) fn jittered(backoff: Duration) -> Duration {
    backoff.mul_f64(os_rng().random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A tenth of the default limits.
    const LIMITS: Limits = Limits {
        total: Duration::from_millis(500),
        aws_attempt: Duration::from_millis(300),
        first_backoff: Duration::from_millis(10),
        store_outcome: Duration::from_secs(2),
    };
    /// What a busy machine may add to a time.
    const SLACK: Duration = Duration::from_millis(300);

    async fn run<F>(attempt: impl FnMut() -> F) -> (Result<u32, AttemptError>, Duration)
    where
        F: Future<Output = Result<u32, AttemptError>>,
    {
        let started = Instant::now();
        let result = with_attempts(LIMITS.total, LIMITS.aws_attempt, LIMITS.first_backoff, attempt).await;
        (result, started.elapsed())
    }

    #[tokio::test]
    async fn transient_failures_are_tried_again_until_the_time_is_over() {
        let attempts = Cell::new(0);
        let (result, took) = run(|| {
            attempts.set(attempts.get() + 1);
            async { Err(AttemptError::transient(FailureReason::Throttled, "")) }
        })
        .await;
        assert_eq!(result.unwrap_err().reason, FailureReason::Throttled);
        assert!((4..=16).contains(&attempts.get()), "{}", attempts.get());
        assert!(took < LIMITS.total + SLACK, "{took:?}");
    }

    #[tokio::test]
    async fn the_first_success_ends_it() {
        let attempts = Cell::new(0);
        let (result, took) = run(|| {
            attempts.set(attempts.get() + 1);
            let attempt = attempts.get();
            async move {
                if attempt < 3 {
                    Err(AttemptError::transient(FailureReason::Unavailable, ""))
                } else {
                    Ok(attempt)
                }
            }
        })
        .await;
        assert_eq!(result, Ok(3));
        assert!(took >= Duration::from_millis(15) && took < LIMITS.total + SLACK, "{took:?}");
    }

    #[tokio::test]
    async fn a_failure_for_good_is_not_tried_again() {
        let attempts = Cell::new(0);
        let (result, _) = run(|| {
            attempts.set(attempts.get() + 1);
            async { Err(AttemptError::last(FailureReason::OptedOut, "code")) }
        })
        .await;
        assert_eq!(attempts.get(), 1);
        assert_eq!(result, Err(AttemptError::last(FailureReason::OptedOut, "code")));
    }

    #[tokio::test]
    async fn an_attempt_without_an_answer_leaves_time_for_another() {
        let attempts = Cell::new(0);
        let (result, took) = run(|| {
            attempts.set(attempts.get() + 1);
            let first = attempts.get() == 1;
            async move { if first { std::future::pending().await } else { Ok(2) } }
        })
        .await;
        assert_eq!(result, Ok(2));
        assert!(took >= LIMITS.aws_attempt && took < LIMITS.total + SLACK, "{took:?}");

        let (result, took) = run(std::future::pending).await;
        assert_eq!(result.unwrap_err().reason, FailureReason::TimedOut);
        assert!(took + LIMITS.first_backoff * 8 >= LIMITS.total && took < LIMITS.total + SLACK, "{took:?}");
    }
    #[tokio::test]
    async fn an_attempt_that_is_cut_short_does_not_hide_the_error_before_it() {
        let attempts = Cell::new(0);
        let (result, _) = run(|| {
            attempts.set(attempts.get() + 1);
            let first = attempts.get() == 1;
            async move {
                if first {
                    sleep(LIMITS.total.saturating_sub(LIMITS.aws_attempt) + Duration::from_millis(50)).await;
                    return Err(AttemptError::transient(FailureReason::Throttled, ""));
                }
                std::future::pending().await
            }
        })
        .await;
        assert_eq!((result.unwrap_err().reason, attempts.get()), (FailureReason::Throttled, 2));
    }
}
