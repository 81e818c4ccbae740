//! Rate limits per tenant: a token bucket each, with time passed in.

use std::sync::{Mutex, PoisonError};

use cloister_scheduler_core::{Moment, TenantIndex};

/// One bucket per tenant, full at the start.
#[derive(Debug)]
pub(crate) struct Limiter {
    per_minute: u64,
    buckets: Mutex<Vec<Bucket>>,
}

#[derive(Clone, Debug)]
struct Bucket {
    /// In 60,000ths of a request, so that a millisecond adds `per_minute` of them.
    level: u64,
    at: Moment,
}

/// What one request takes.
const REQUEST: u64 = 60_000;

impl Limiter {
    /// Allows each tenant `per_minute` requests a minute, and as many at once.
    pub(crate) fn new(per_minute: u32, tenants: usize, now: Moment) -> Self {
        let per_minute = u64::from(per_minute);
        let full = Bucket {
            level: per_minute.saturating_mul(REQUEST),
            at: now,
        };
        Self {
            per_minute,
            buckets: Mutex::new(vec![full; tenants]),
        }
    }

    /// Takes one request out of the tenant's bucket, if there is one.
    pub(crate) fn take(&self, now: Moment, tenant: TenantIndex) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bucket) = buckets.get_mut(tenant.0) else {
            return false;
        };
        let elapsed = u64::try_from(now.since(bucket.at).as_millis()).unwrap_or(u64::MAX);
        let full = self.per_minute.saturating_mul(REQUEST);
        bucket.level = bucket
            .level
            .saturating_add(elapsed.saturating_mul(self.per_minute))
            .min(full);
        bucket.at = bucket.at.max(now);
        match bucket.level.checked_sub(REQUEST) {
            Some(rest) => {
                bucket.level = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenant_has_a_bucket_that_refills() {
        let limiter = Limiter::new(2, 2, Moment(0));
        let take = |at, tenant| limiter.take(Moment(at), TenantIndex(tenant));
        assert!(take(0, 0) && take(0, 0));
        assert!(!take(0, 0));
        assert!(take(0, 1), "the other tenant's is its own");
        assert!(!take(29_999, 0));
        assert!(take(30_000, 0));
        assert!(take(1_000_000, 0) && take(1_000_000, 0));
        assert!(!take(1_000_000, 0), "it holds a minute's worth");
        assert!(!take(0, 2), "no such tenant");
    }
}
