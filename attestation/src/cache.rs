//! Results of appraisals by what went into them, so that the same evidence is not appraised twice.

use std::collections::HashMap;

use crate::binding::NONCE_LEN;
use crate::evidence::Evidence;
use crate::identity::sha256;
use crate::ids::{PolicyHash, Sha256Digest, UnixTime};
use crate::result::AttestationResult;

/// Most results that are kept.
pub const MAX_RESULTS: usize = 1024;

/// Results by evidence, nonce and policy, each until the first of its expiries. It holds no refusals: who is refused may show
/// something better a moment later.
#[derive(Debug, Default)]
pub struct ResultCache {
    results: HashMap<ResultKey, AttestationResult>,
}

/// Everything that a result depends on, but for the time and the endorsements: those are what the result's expiry is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResultKey(Sha256Digest);

// === impl ResultKey ===

impl ResultKey {
    /// The key of `evidence` that answers `nonce`, under the policy of `policy`.
    #[must_use]
    pub fn new(evidence: &Evidence, nonce: &[u8; NONCE_LEN], policy: &PolicyHash) -> Self {
        // Two of fixed length, then one.
        Self(sha256(&[nonce, policy.as_bytes(), evidence.to_json().as_bytes()]))
    }
}

// === impl ResultCache ===

impl ResultCache {
    /// The result, if there is one that is current at `now`.
    #[must_use]
    pub fn get(&self, key: &ResultKey, now: UnixTime) -> Option<&AttestationResult> {
        self.results.get(key).filter(|result| result.is_current(now))
    }

    /// Keeps `result`. Where there is no room, those that are no longer current make it, then the one that ends first.
    pub fn insert(&mut self, key: ResultKey, result: AttestationResult, now: UnixTime) {
        if self.results.len() >= MAX_RESULTS {
            self.results.retain(|_, result| result.is_current(now));
        }
        if self.results.len() >= MAX_RESULTS {
            let first = self.results.iter().min_by_key(|(_, result)| result.expires_at());
            if let Some(first) = first.map(|(key, _)| *key) {
                self.results.remove(&first);
            }
        }
        self.results.insert(key, result);
    }

    /// Number of results.
    #[must_use]
    pub fn len(&self) -> usize {
        self.results.len()
    }

    /// True without results.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }
}
