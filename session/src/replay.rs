//! Replay cache: each sealed request is opened at most once per key window.

use std::collections::{HashMap, HashSet};

use crate::ids::{HeaderHash, TenantId};

/// Requests of one tenant in one window (10 minutes): 65,536, about 100 a second.
pub const TENANT_QUOTA: usize = 1 << 16;
/// Requests of all tenants in one window: 262,144, about 16 MiB.
pub const TOTAL_QUOTA: usize = 1 << 18;

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayError {
    /// Seen before.
    Replayed,
    /// The tenant's share, or the whole cache, is full: without a record of the request it could be replayed.
    QuotaExceeded,
}

/// Requests seen in one window, by full tenant id and header hash. Only authenticated requests get here, so nobody can
/// use up another tenant's share.
#[derive(Default)]
pub struct ReplayCache {
    seen: HashMap<TenantId, HashSet<HeaderHash>>,
    total: usize,
}

impl ReplayCache {
    /// Takes a request once.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn admit(&mut self, tenant: &TenantId, request: &HeaderHash) -> Result<(), ReplayError> {
        let share = self.seen.entry(*tenant).or_default();
        if share.contains(request) {
            return Err(ReplayError::Replayed);
        }
        if share.len() >= TENANT_QUOTA || self.total >= TOTAL_QUOTA {
            return Err(ReplayError::QuotaExceeded);
        }
        share.insert(*request);
        self.total = self.total.saturating_add(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(i: usize) -> HeaderHash {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&i.to_be_bytes());
        HeaderHash::from_bytes(bytes)
    }

    #[test]
    fn once_per_tenant_and_with_a_full_quota_neither_new_nor_again() {
        let (a, b) = (TenantId::from_bytes([1; 32]), TenantId::from_bytes([2; 32]));
        let mut cache = ReplayCache::default();
        for i in 0..TENANT_QUOTA {
            assert_eq!(cache.admit(&a, &hash(i)), Ok(()));
        }
        assert_eq!(cache.admit(&a, &hash(0)), Err(ReplayError::Replayed));
        assert_eq!(cache.admit(&a, &hash(TENANT_QUOTA)), Err(ReplayError::QuotaExceeded));
        assert_eq!(cache.admit(&b, &hash(0)), Ok(()), "another tenant's share is its own");
    }

    #[test]
    fn the_whole_cache_is_bounded() {
        let mut cache = ReplayCache {
            total: TOTAL_QUOTA,
            ..ReplayCache::default()
        };
        assert_eq!(
            cache.admit(&TenantId::from_bytes([1; 32]), &hash(0)),
            Err(ReplayError::QuotaExceeded)
        );
    }
}
