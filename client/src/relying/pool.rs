//! Candidates of one model: drawn, attested, with live keys.

use super::draw::{Draw, MAX_ATTESTED_PER_DRAW, Shape, shuffle};
use super::trust::{Attested, ContactError, Trust};
use super::upstream::Upstream;
use crate::failure::{Code, Failure};
use cloister_attestation::{EnclaveId, ModelDigest, PlatformId, UnixTime};
use cloister_session::TenantRef;
use cloister_session::key_config::{SignedKeyConfig, VerifiedKeyConfig};
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Key configurations that are looked at in one offer.
pub const MAX_OFFERED: usize = 256;

/// Keys are asked for again this long before the last one ends, seconds. Enclaves give out the next one 180 s early.
const RENEW_BEFORE: u64 = 150;
/// While fewer enclaves are there than a request could name, more are looked for this often, seconds.
const FILL_EVERY: u64 = 30;

/// An enclave to seal for.
#[derive(Clone)]
pub struct Candidate {
    /// Its key.
    pub key: VerifiedKeyConfig,
    /// Why it is trusted.
    pub attested: Arc<Attested>,
}

pub(super) struct Pool {
    model: ModelDigest,
    shape: Shape,
    state: Mutex<State>,
    /// Held while keys are fetched, so that calls that wait for them share one fetch.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    draw: Draw,
    keys: BTreeMap<EnclaveId, Vec<Key>>,
    /// Counts fetches; who waits for a fetch sees that another one did it, and how it ended.
    generation: u64,
    failure: Option<Failure>,
    filled_at: Option<UnixTime>,
    stale: bool,
}

struct Key {
    signed: SignedKeyConfig,
    verified: Option<VerifiedKeyConfig>,
}

/// Parses an offer. What is malformed, or for another tenant or model, is left out: it only means that one is offered less.
pub fn parse_offered(
    objects: &[Vec<u8>],
    tenant: &TenantRef,
    model: &ModelDigest,
) -> BTreeMap<EnclaveId, Vec<SignedKeyConfig>> {
    let mut offered: BTreeMap<EnclaveId, Vec<SignedKeyConfig>> = BTreeMap::new();
    for object in objects.iter().take(MAX_OFFERED) {
        let Ok(signed) = SignedKeyConfig::parse(object) else {
            tracing::warn!("the scheduler offers something that is no key configuration");
            continue;
        };
        let config = signed.unverified();
        if config.tenant_ref == *tenant && config.model == *model {
            offered.entry(config.enclave_id).or_default().push(signed);
        }
    }
    offered
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(model: ModelDigest, shape: Shape) -> Self {
        Self {
            model,
            shape,
            state: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    /// What can be sealed for now, in order of preference; nothing when it is not on enough platforms.
    pub(super) fn candidates(&self, trust: &Trust, tenant: &TenantRef, now: UnixTime) -> Option<Vec<Candidate>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stale {
            return None;
        }
        let State { draw, keys, .. } = &mut *state;
        let mut live = Draw::default();
        let mut candidates = Vec::with_capacity(draw.enclaves.len());
        for (enclave, platform) in &draw.enclaves {
            let Some(attested) = trust.known(enclave, now) else {
                continue;
            };
            let Some(key) = keys
                .get_mut(enclave)
                .and_then(|keys| live_key(keys, &attested, tenant, now))
            else {
                continue;
            };
            live.enclaves.push((*enclave, *platform));
            candidates.push(Candidate { key, attested });
        }
        live.is_spread(self.shape).then_some(candidates)
    }

    /// Whether keys, evidence or the draw should be renewed before a call has to wait for it.
    pub(super) fn is_due(&self, trust: &Trust, now: UnixTime) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let renew_at = now.plus(RENEW_BEFORE);
        let ends_soon = |enclave: &EnclaveId| {
            let last = state
                .keys
                .get(enclave)
                .and_then(|keys| keys.iter().map(|key| key.signed.unverified().not_after).max());
            last.is_none_or(|last| last <= renew_at)
        };
        state.stale
            || state.draw.kept(now, |_| true).enclaves.is_empty()
            || (!state.draw.is_full(self.shape) && state.filled_at.is_none_or(|filled| now >= filled.plus(FILL_EVERY)))
            || state
                .draw
                .enclaves
                .iter()
                .any(|(enclave, _)| ends_soon(enclave) || trust.is_due(enclave, now))
    }

    /// Keys were refused upstream: fetch them before the next use.
    pub(super) fn invalidate(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stale = true;
    }

    pub(super) fn generation(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).generation
    }

    /// Fetches keys and draws what is missing. Who waited while another did that shares its outcome: calls that find an
    /// endpoint broken do not queue up to try it one after the other.
    pub(super) async fn refresh<U: Upstream + ?Sized>(
        &self,
        upstream: &U,
        trust: &Trust,
        tenant: &TenantRef,
        now: UnixTime,
        seen: u64,
    ) -> Result<(), Failure> {
        let _fetching = self.fetching.lock().await;
        {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.generation != seen {
                return state.failure.clone().map_or(Ok(()), Err);
            }
        }
        let fetched = self.fetch(upstream, trust, tenant, now).await;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.generation = state.generation.wrapping_add(1);
        match fetched {
            Ok((draw, keys)) => {
                *state = State {
                    draw,
                    keys,
                    generation: state.generation,
                    failure: None,
                    filled_at: Some(now),
                    stale: false,
                };
                Ok(())
            }
            Err(failure) => {
                state.failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    async fn fetch<U: Upstream + ?Sized>(
        &self,
        upstream: &U,
        trust: &Trust,
        tenant: &TenantRef,
        now: UnixTime,
    ) -> Result<(Draw, BTreeMap<EnclaveId, Vec<Key>>), Failure> {
        let objects = upstream.key_configs(tenant, &self.model).await?;
        let offered = parse_offered(&objects, tenant, &self.model);
        if offered.is_empty() {
            return Err(Failure::retryable(
                Code::NoEnclave,
                "the scheduler offers no key of this model: no enclave serves it now, or the digest in the configuration is another",
            ));
        }
        let draw = self.draw(upstream, trust, tenant, now, &offered).await?;
        let keys = offered
            .into_iter()
            .filter(|(enclave, _)| draw.enclaves.iter().any(|(drawn, _)| drawn == enclave))
            .map(|(enclave, keys)| (enclave, keys.into_iter().map(Key::new).collect()))
            .collect();
        Ok((draw, keys))
    }

    /// Keeps what is left of the draw and fills it up, asking no more enclaves for evidence than that takes.
    async fn draw<U: Upstream + ?Sized>(
        &self,
        upstream: &U,
        trust: &Trust,
        tenant: &TenantRef,
        now: UnixTime,
        offered: &BTreeMap<EnclaveId, Vec<SignedKeyConfig>>,
    ) -> Result<Draw, Failure> {
        let old = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.draw.kept(now, |enclave| offered.contains_key(enclave))
        };
        let kept: Vec<EnclaveId> = old.enclaves.iter().map(|(enclave, _)| *enclave).collect();
        let mut rest: Vec<EnclaveId> = offered
            .keys()
            .filter(|enclave| !kept.contains(enclave))
            .copied()
            .collect();
        shuffle(&mut rest, crate::random::below);
        let order: Vec<EnclaveId> = kept.into_iter().chain(rest).take(MAX_ATTESTED_PER_DRAW).collect();

        let mut draw = Draw {
            enclaves: Vec::new(),
            drawn_at: old.drawn_at,
        };
        let mut last_error = None;
        let mut contacts = futures::stream::iter(order)
            .map(|enclave| async move { (enclave, trust.attest(upstream, tenant, &enclave, now).await) })
            .buffered(self.shape.slots);
        while let Some((enclave, outcome)) = contacts.next().await {
            match outcome {
                Ok(attested) => draw.offer(self.shape, enclave, platform(&attested)),
                Err(error) => last_error = worse(last_error, error),
            }
            if draw.is_full(self.shape) {
                break;
            }
        }
        if draw.is_spread(self.shape) {
            return Ok(draw);
        }
        Err(last_error.map_or_else(|| not_spread(self.shape), Failure::from))
    }
}

impl Key {
    fn new(signed: SignedKeyConfig) -> Self {
        Self { signed, verified: None }
    }
}

/// The live key that lasts longest, verified once.
fn live_key(keys: &mut [Key], attested: &Attested, tenant: &TenantRef, now: UnixTime) -> Option<VerifiedKeyConfig> {
    let live = |key: &&mut Key| {
        let config = key.signed.unverified();
        config.not_before <= now && now < config.not_after
    };
    let key = keys
        .iter_mut()
        .filter(live)
        .max_by_key(|key| key.signed.unverified().not_after)?;
    if key.verified.is_none() {
        match key.signed.verify(&attested.peer, tenant, now) {
            Ok(verified) => key.verified = Some(verified),
            Err(error) => tracing::warn!(%error, "a key configuration is refused"),
        }
    }
    key.verified.clone()
}

fn platform(attested: &Attested) -> PlatformId {
    attested.peer.result().platform_id()
}

/// A refusal says more than an enclave that is away.
fn worse(known: Option<ContactError>, new: ContactError) -> Option<ContactError> {
    match (&known, &new) {
        (Some(ContactError::Refused(_)), ContactError::Unreachable(_)) => known,
        _ => Some(new),
    }
}

fn not_spread(shape: Shape) -> Failure {
    Failure::retryable(
        Code::NoEnclave,
        format!(
            "the policy wants candidates on {} different platforms, and fewer are offered",
            shape.platforms
        ),
    )
}
