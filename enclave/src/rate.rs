//! Rate limit of evidence: each report costs the TEE milliseconds.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use cloister_enclave_lease::Millis;
use cloister_session::TenantRef;

/// Reports that a tenant may have at once.
const BURST: u64 = 60;
/// Milliseconds after which one more may be had.
const REFILL: u64 = 1000;
/// Tenants that are remembered: about 200 KiB. Beyond it nobody new is served until somebody's bucket is full again.
const MAX_TENANTS: usize = 4096;

/// Token buckets by tenant: 60 at once, then one a second.
#[derive(Default)]
pub(crate) struct RateLimit {
    /// When each tenant's bucket will be full again, in milliseconds.
    full_at: Mutex<HashMap<TenantRef, u64>>,
}

impl RateLimit {
    /// Takes one, if there is one.
    pub(crate) fn take(&self, tenant: &TenantRef, now: Millis) -> bool {
        let mut buckets = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_TENANTS && !buckets.contains_key(tenant) {
            buckets.retain(|_, full_at| *full_at > now.0);
            if buckets.len() >= MAX_TENANTS {
                return false;
            }
        }
        let full_at = buckets.entry(*tenant).or_insert(now.0);
        let next = (*full_at).max(now.0).saturating_add(REFILL);
        let allowed = next.saturating_sub(now.0) <= BURST * REFILL;
        if allowed {
            *full_at = next;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TenantRef = TenantRef::from_bytes([1; 16]);

    #[test]
    fn a_burst_then_one_a_second_each() {
        let limit = RateLimit::default();
        assert!((0..BURST).all(|_| limit.take(&A, Millis(5))));
        assert!(!limit.take(&A, Millis(5)));
        assert!(!limit.take(&A, Millis(1004)));
        assert!(limit.take(&A, Millis(1005)));
        assert!(!limit.take(&A, Millis(1005)));
        assert!(limit.take(&TenantRef::from_bytes([2; 16]), Millis(5)));
    }

    #[test]
    fn memory_is_bounded() {
        let limit = RateLimit::default();
        for i in 0..MAX_TENANTS as u128 {
            assert!(limit.take(&TenantRef::from_bytes(i.to_be_bytes()), Millis(0)));
        }
        assert!(!limit.take(&TenantRef::from_bytes([0xff; 16]), Millis(0)));
        assert!(
            limit.take(&TenantRef::from_bytes([0xff; 16]), Millis(REFILL)),
            "full buckets are forgotten"
        );
    }
}
