//! Key configurations: fetched from enclaves, handed to clients unread, and remembered, so that a request's key ids say where it can go.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cloister_attestation::{EnclaveId, ModelDigest, UnixTime};
use cloister_scheduler_core::{BootId, Candidate, Moment, ReplicaIndex, TenantIndex};
use cloister_session::{KeyId, key_config::SignedKeyConfig, limits::MAX_SIGNED_OBJECT};
use futures::future::join_all;
use tokio::time::timeout;

use crate::{
    auth::Authorized,
    clock::Clock,
    dispatcher::Dispatcher,
    enclaves::{Enclave, Enclaves},
    refusal::Code,
};

/// How long an enclave's key configurations are handed out without asking it again. The next window's are out minutes early.
const FRESH: Duration = Duration::from_secs(10);
/// Time for an enclave to answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Most key configurations of one enclave for one tenant: the present window, the next, and one to spare.
const MAX_KEY_CONFIGS: usize = 3;
/// Seconds after `not_after` in which the enclave still opens what waited (the protocol allows 120), less some for the way there.
const KEY_GRACE: u64 = 115;

pub(crate) struct Keys {
    clock: Clock,
    enclaves: Enclaves,
    dispatcher: Arc<Dispatcher>,
    index: Mutex<Index>,
}

/// What was handed out. Nothing in it is verified: clients do that. A lie makes requests go where they cannot be opened.
#[derive(Debug, Default)]
struct Index {
    offers: HashMap<(ReplicaIndex, TenantIndex), Offer>,
    by_key: HashMap<KeyId, (ReplicaIndex, TenantIndex)>,
}

#[derive(Clone, Debug)]
struct Offer {
    fetched: Moment,
    /// The boot that the status stream named then.
    boot: BootId,
    keys: Vec<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    key_id: KeyId,
    signed: Bytes,
    enclave: EnclaveId,
    boot: BootId,
    model: ModelDigest,
    not_after: UnixTime,
}

// === impl Keys ===

impl Keys {
    pub(crate) fn new(clock: Clock, enclaves: Enclaves, dispatcher: Arc<Dispatcher>) -> Self {
        Self {
            clock,
            enclaves,
            dispatcher,
            index: Mutex::default(),
        }
    }

    /// The key configurations for a tenant and a model, of every enclave that can be reached.
    pub(crate) async fn offer(&self, caller: Authorized, model: &ModelDigest) -> Result<Vec<Bytes>, Code> {
        let live = self.enclaves.iter().filter_map(|enclave| {
            let boot = self.dispatcher.live_boot(enclave.index)?;
            Some(self.refresh(enclave, boot, caller))
        });
        let reached = join_all(live).await;
        if !reached.contains(&true) {
            return Err(Code::CandidateUnavailable);
        }
        let now = self.clock.unix();
        let index = self.lock();
        let offers = self.enclaves.iter().filter_map(|enclave| {
            let boot = self.dispatcher.live_boot(enclave.index)?;
            let offer = index.offers.get(&(enclave.index, caller.tenant))?;
            Some(offer.keys.iter().filter(move |key| key.boot == boot))
        });
        let offered = offers
            .flatten()
            .filter(|key| key.model == *model && now < key.not_after);
        Ok(offered.map(|key| key.signed.clone()).collect())
    }

    /// Where a request that is sealed to these keys can go. Keys that were not handed out to this tenant for this model are no candidates.
    pub(crate) fn candidates(&self, caller: Authorized, model: &ModelDigest, keys: &[KeyId]) -> Vec<Candidate> {
        let index = self.lock();
        let candidates = keys.iter().filter_map(|key_id| {
            let (replica, tenant) = *index.by_key.get(key_id)?;
            let offer = index.offers.get(&(replica, tenant))?;
            let key = offer.keys.iter().find(|key| key.key_id == *key_id)?;
            (tenant == caller.tenant && key.model == *model).then(|| Candidate {
                replica,
                boot: key.boot,
                usable_until: self.clock.moment_of(key.not_after.plus(KEY_GRACE)),
            })
        });
        candidates.collect()
    }

    /// The enclave of this name, if this tenant was handed a key of it and it is still the same process.
    pub(crate) fn enclave(&self, caller: Authorized, name: &EnclaveId) -> Option<&Enclave> {
        let index = self.lock();
        self.enclaves.iter().find(|enclave| {
            let boot = self.dispatcher.live_boot(enclave.index);
            let offer = index.offers.get(&(enclave.index, caller.tenant));
            offer.is_some_and(|offer| {
                let mut keys = offer.keys.iter();
                keys.any(|key| key.enclave == *name && Some(key.boot) == boot)
            })
        })
    }

    /// Asks the enclave, unless its last answer is fresh. Says whether there is an answer.
    async fn refresh(&self, enclave: &Enclave, boot: BootId, caller: Authorized) -> bool {
        let place = (enclave.index, caller.tenant);
        let now = self.clock.now();
        let is_fresh = |offer: &Offer| offer.boot == boot && now.since(offer.fetched) < FRESH;
        if self.lock().offers.get(&place).is_some_and(is_fresh) {
            return true;
        }
        let signed = match timeout(FETCH_TIMEOUT, enclave.key_configs(caller.tenant_ref)).await {
            Ok(Ok(signed)) => signed,
            Ok(Err(status)) => {
                tracing::debug!(enclave = enclave.authority(), code = ?status.code(), "no key configurations");
                return false;
            }
            Err(_) => return false,
        };
        let keys = signed.into_iter().take(MAX_KEY_CONFIGS);
        let keys: Vec<_> = keys.filter_map(|signed| Key::parse(signed, caller)).collect();
        if keys.is_empty() {
            tracing::warn!(
                enclave = enclave.authority(),
                "the enclave has no valid key configuration for a tenant"
            );
            // Not remembered: it may have one in a moment.
            return true;
        }
        let offer = Offer {
            fetched: now,
            boot,
            keys,
        };
        let unix = self.clock.unix();
        self.lock().insert(place, offer, unix);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Key ===

impl Key {
    fn parse(signed: Bytes, caller: Authorized) -> Option<Self> {
        if signed.len() > MAX_SIGNED_OBJECT {
            return None;
        }
        let parsed = SignedKeyConfig::parse(&signed).ok()?;
        let config = parsed.unverified();
        (config.tenant_ref == caller.tenant_ref).then(|| Self {
            key_id: config.key_id,
            enclave: config.enclave_id,
            boot: BootId(*config.boot_id.as_bytes()),
            model: config.model,
            not_after: config.not_after,
            signed,
        })
    }
}

// === impl Index ===

impl Index {
    /// Takes an enclave's answer in. Keys of before stay until they are erased, for requests that are sealed to them.
    fn insert(&mut self, place: (ReplicaIndex, TenantIndex), mut offer: Offer, now: UnixTime) {
        // A key id belongs to the enclave that named it first: no other can divert what is sealed to it.
        offer
            .keys
            .retain(|key| self.by_key.get(&key.key_id).is_none_or(|owner| *owner == place));
        let boots: Vec<_> = offer.keys.iter().map(|key| key.boot).collect();
        for old in self.offers.remove(&place).map_or_else(Vec::new, |old| old.keys) {
            let again = offer.keys.iter().any(|key| key.key_id == old.key_id);
            let alive = boots.contains(&old.boot) && now < old.not_after.plus(KEY_GRACE);
            if alive && !again {
                offer.keys.push(old);
            } else if !again {
                self.by_key.remove(&old.key_id);
            }
        }
        for key in &offer.keys {
            self.by_key.insert(key.key_id, place);
        }
        self.offers.insert(place, offer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: (ReplicaIndex, TenantIndex) = (ReplicaIndex(0), TenantIndex(0));
    const OTHER: (ReplicaIndex, TenantIndex) = (ReplicaIndex(1), TenantIndex(0));

    fn offer(keys: &[(u8, u8, u64)]) -> Offer {
        let keys = keys.iter().map(|(id, boot, not_after)| Key {
            key_id: KeyId::from_bytes([*id; 16]),
            signed: Bytes::new(),
            enclave: EnclaveId::from_bytes([0; 32]),
            boot: BootId([*boot; 16]),
            model: ModelDigest::from_bytes([0; 32]),
            not_after: UnixTime(*not_after),
        });
        Offer {
            fetched: Moment(0),
            boot: BootId([0; 16]),
            keys: keys.collect(),
        }
    }

    fn known(index: &Index) -> Vec<u8> {
        let mut known: Vec<_> = index.by_key.keys().map(|key| key.as_bytes()[0]).collect();
        known.sort_unstable();
        known
    }

    #[test]
    fn keys_of_the_window_before_stay_until_they_are_erased() {
        let mut index = Index::default();
        index.insert(PLACE, offer(&[(1, 9, 1_000)]), UnixTime(900));
        index.insert(PLACE, offer(&[(2, 9, 1_600)]), UnixTime(1_100));
        assert_eq!(known(&index), [1, 2]);
        index.insert(PLACE, offer(&[(2, 9, 1_600)]), UnixTime(1_115));
        assert_eq!(known(&index), [2]);
    }

    #[test]
    fn keys_of_another_boot_go_at_once() {
        let mut index = Index::default();
        index.insert(PLACE, offer(&[(1, 9, 1_000)]), UnixTime(900));
        index.insert(PLACE, offer(&[(2, 8, 1_000)]), UnixTime(900));
        assert_eq!(known(&index), [2]);
    }

    #[test]
    fn a_key_stays_with_the_enclave_that_named_it_first() {
        let mut index = Index::default();
        index.insert(PLACE, offer(&[(1, 9, 1_000)]), UnixTime(900));
        index.insert(OTHER, offer(&[(1, 9, 1_000)]), UnixTime(900));
        assert_eq!(index.by_key.get(&KeyId::from_bytes([1; 16])), Some(&PLACE));
        assert!(index.offers[&OTHER].keys.is_empty());
    }
}
