//! Which enclaves are trusted: evidence over this party's own nonce, appraised under this party's own policy.

use super::upstream::Upstream;
use crate::collateral::Source;
use crate::failure::{Code, Failure};
use cloister_attestation::{AppraisalPolicy, AttestedPeer, EnclaveId, Evidence, PolicyHash, UnixTime, appraise};
use cloister_session::TenantRef;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Evidence older than this is asked for again, seconds.
pub const REATTEST_AFTER: u64 = 30 * 60;
/// Evidence that could not be renewed is not used any more at this age, seconds: who withholds new evidence gains no more than
/// this. A policy's `maxAgeSeconds` holds besides, where it is less.
pub const LAPSES_AFTER: u64 = 2 * REATTEST_AFTER;
/// A refused enclave is not asked again for this long, seconds: its evidence would be the same.
const REFUSED_FOR: u64 = 60;
/// Enclaves that are remembered. Enclaves come and go with each restart.
const MAX_REMEMBERED: usize = 256;

/// An enclave that the policy accepts, and the evidence for it.
pub struct Attested {
    /// What sealing needs.
    pub peer: AttestedPeer,
    /// The evidence as received.
    pub evidence: Vec<u8>,
    /// The nonce that it is over.
    pub nonce: [u8; 32],
}

/// Why an enclave is not trusted.
#[derive(Clone, Debug)]
pub enum ContactError {
    /// Its evidence could not be had.
    Unreachable(Failure),
    /// Its evidence was refused.
    Refused(String),
}

/// The policy, and the enclaves that were appraised under it.
pub struct Trust {
    policy: AppraisalPolicy,
    policy_hash: PolicyHash,
    collateral: Option<Source>,
    known: Mutex<HashMap<EnclaveId, Known>>,
}

enum Known {
    Accepted(Arc<Attested>),
    Refused { reason: String, until: UnixTime },
}

// === impl ContactError ===

impl From<ContactError> for Failure {
    fn from(error: ContactError) -> Self {
        match error {
            ContactError::Unreachable(failure) => failure,
            ContactError::Refused(reason) => Failure::new(
                Code::AttestationRefused,
                format!("the policy refuses every enclave that is offered; the last one: {reason}"),
            ),
        }
    }
}

// === impl Trust ===

impl Trust {
    /// Trusts nothing yet. `collateral` is the directory of what evidence does not bring along, read again when it changes.
    pub fn new(policy: AppraisalPolicy, collateral: Option<PathBuf>) -> Self {
        Self {
            policy_hash: policy.canonical_hash(),
            policy,
            collateral: collateral.map(Source::new),
            known: Mutex::default(),
        }
    }

    /// The policy.
    pub fn policy(&self) -> &AppraisalPolicy {
        &self.policy
    }

    /// Its hash, which requests and receipts state.
    pub fn policy_hash(&self) -> PolicyHash {
        self.policy_hash
    }

    /// An enclave that is attested now, without asking it: its evidence holds under the policy, and is younger than
    /// [`LAPSES_AFTER`].
    pub fn known(&self, enclave: &EnclaveId, now: UnixTime) -> Option<Arc<Attested>> {
        match self.known.lock().unwrap_or_else(PoisonError::into_inner).get(enclave) {
            Some(Known::Accepted(attested)) if is_usable(attested, now) => Some(attested.clone()),
            _ => None,
        }
    }

    /// Whether the enclave should be asked again although it is still trusted.
    pub fn is_due(&self, enclave: &EnclaveId, now: UnixTime) -> bool {
        self.known(enclave, now)
            .is_none_or(|attested| now >= attested.peer.result().appraised_at().plus(REATTEST_AFTER))
    }

    /// Forgets an enclave, because it says itself that its state has changed.
    pub fn forget(&self, enclave: &EnclaveId) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(enclave);
    }

    /// Asks an enclave for evidence, unless what is known of it is fresh.
    ///
    /// # Errors
    ///
    /// Its evidence is not to be had and what is known is out of date, or it is refused: then at once, whatever was known.
    pub async fn attest<U: Upstream + ?Sized>(
        &self,
        upstream: &U,
        tenant: &TenantRef,
        enclave: &EnclaveId,
        now: UnixTime,
    ) -> Result<Arc<Attested>, ContactError> {
        if let Some(reason) = self.refused(enclave, now) {
            return Err(ContactError::Refused(reason));
        }
        let known = self.known(enclave, now);
        if let (Some(attested), false) = (&known, self.is_due(enclave, now)) {
            return Ok(attested.clone());
        }
        let nonce = crate::random::bytes::<32>();
        let evidence = match upstream.evidence(tenant, enclave, &nonce).await {
            Ok(evidence) => evidence,
            Err(failure) => return known.ok_or(ContactError::Unreachable(failure)),
        };
        match self.appraise(enclave, evidence, nonce, now) {
            Ok(attested) => {
                let attested = Arc::new(attested);
                self.remember(*enclave, Known::Accepted(attested.clone()), now);
                Ok(attested)
            }
            Err(reason) => {
                tracing::warn!(%enclave, %reason, "the policy refuses an enclave");
                self.remember(
                    *enclave,
                    Known::Refused {
                        reason: reason.clone(),
                        until: now.plus(REFUSED_FOR),
                    },
                    now,
                );
                Err(ContactError::Refused(reason))
            }
        }
    }

    fn appraise(
        &self,
        expected: &EnclaveId,
        bytes: Vec<u8>,
        nonce: [u8; 32],
        now: UnixTime,
    ) -> Result<Attested, String> {
        let evidence = Evidence::from_json(&bytes).map_err(|error| error.to_string())?;
        let endorsements = self.collateral.as_ref().map(Source::current).unwrap_or_default();
        let result =
            appraise(&evidence, &nonce, now, &self.policy, &endorsements).map_err(|error| error.to_string())?;
        if result.enclave_id() != *expected {
            return Err("the evidence is of another enclave than the one asked for".to_owned());
        }
        let peer = AttestedPeer::new(result, now).map_err(|error| error.to_string())?;
        Ok(Attested {
            peer,
            evidence: bytes,
            nonce,
        })
    }

    fn refused(&self, enclave: &EnclaveId, now: UnixTime) -> Option<String> {
        match self.known.lock().unwrap_or_else(PoisonError::into_inner).get(enclave) {
            Some(Known::Refused { reason, until }) if now < *until => Some(reason.clone()),
            _ => None,
        }
    }

    fn remember(&self, enclave: EnclaveId, what: Known, now: UnixTime) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REMEMBERED {
            known.retain(|_, known| match known {
                Known::Accepted(attested) => is_usable(attested, now),
                Known::Refused { until, .. } => now < *until,
            });
        }
        if known.len() >= MAX_REMEMBERED {
            // A scheduler that invents enclaves costs evidence requests, never memory.
            known.clear();
        }
        known.insert(enclave, what);
    }
}

fn is_usable(attested: &Attested, now: UnixTime) -> bool {
    let appraised_at = attested.peer.result().appraised_at();
    attested.peer.is_current(now) && now < appraised_at.plus(LAPSES_AFTER)
}
