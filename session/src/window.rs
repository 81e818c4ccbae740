//! Key windows of one enclave: fresh secrets every ten minutes, erased with their replay cache two minutes after the end.

use std::collections::HashMap;

use cloister_attestation::{BootId, EnclaveId, ModelDigest, SwitchIsolation, Tee, UnixTime, WorkloadDigest};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    enclave::{AwaitingAuth, OpenedRequest, Reason, Refused},
    ids::{KeyId, TenantRef},
    key_config::{KeyConfig, PaddingProfile, SignedKeyConfig},
    limits::{MAX_NAME, MAX_TTL},
    outer::{OuterRequest, Wrap},
    replay::{ReplayCache, ReplayError},
    signing::SigningKey,
    suite,
};

/// Length of a window in seconds.
pub const WINDOW: u64 = 600;
/// Seconds before its start in which the next window's keys are handed out.
pub const EARLY: u64 = 180;
/// Seconds after the end of a window in which its keys still open requests.
pub const GRACE: u64 = 120;
// What was sealed in the last second of a window expires before the window is erased.
const _: () = assert!(GRACE >= MAX_TTL as u64);
/// Most tenants with a key in one window: about 6 MiB of key configurations.
pub const MAX_TENANTS: usize = 4096;

/// What every key of an enclave says of it.
#[derive(Debug, Clone)]
pub struct EnclaveFacts {
    /// Kind of trusted execution environment.
    pub tee: Tee,
    /// The enclave.
    pub enclave_id: EnclaveId,
    /// Its boot.
    pub boot_id: BootId,
    /// The model it serves.
    pub model: ModelDigest,
    /// Name of the model.
    pub served_model_name: String,
    /// What it runs.
    pub workload: WorkloadDigest,
    /// How its engine is cleaned between tenants.
    pub switch_isolation: SwitchIsolation,
    /// How its answers are padded.
    pub padding: PaddingProfile,
}

/// Keys cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// What the keys would say is out of bounds: no client would take them.
    #[error("the padding profile or the served model name is out of bounds: see the configuration of the enclave")]
    Facts,
    /// No randomness for a window secret.
    #[error("no randomness for a key window")]
    Random,
    /// More tenants than a window has room for.
    #[error("the key window has {MAX_TENANTS} tenants already")]
    TooManyTenants,
    /// A key could not be derived.
    #[error("a tenant key could not be derived")]
    Derive,
}

struct Window {
    index: u64,
    start: UnixTime,
    /// Boxed, so that it is erased where it was made and never moved.
    secret: Box<Zeroizing<[u8; 32]>>,
    issued: HashMap<TenantRef, SignedKeyConfig>,
    replay: ReplayCache,
}

impl Window {
    fn end(&self) -> UnixTime {
        self.start.plus(WINDOW)
    }

    fn erase_at(&self) -> UnixTime {
        self.end().plus(GRACE)
    }

    /// The tenant's key, if it has this name and was handed out.
    fn key(&self, tenant: &TenantRef, key_id: &KeyId) -> Option<&SignedKeyConfig> {
        self.issued
            .get(tenant)
            .filter(|issued| issued.unverified().key_id == *key_id)
    }
}

/// The windows that are alive. `now` is always the enclave's own time, which only elapsed time advances; should a caller
/// hand in an earlier one, nothing comes back to life.
pub struct WindowKeys {
    facts: EnclaveFacts,
    windows: Vec<Window>,
    /// Start of window 0.
    origin: UnixTime,
    /// Latest time seen.
    latest: UnixTime,
}

/// A wrap of a live key of this enclave, found but not opened.
pub struct LiveKey<'a> {
    window: u64,
    config_hash: [u8; 32],
    wrap: &'a Wrap,
}

impl WindowKeys {
    /// Starts with the first window. `phase` in seconds shifts the windows' borders, so that they tell nothing of others'.
    ///
    /// # Errors
    /// [`WindowError::Facts`], [`WindowError::Random`].
    pub fn new(facts: EnclaveFacts, phase: u64, now: UnixTime) -> Result<Self, WindowError> {
        if !facts.padding.is_valid() || !(1..=MAX_NAME).contains(&facts.served_model_name.len()) {
            return Err(WindowError::Facts);
        }
        let origin = UnixTime(now.0.saturating_sub(phase % WINDOW));
        let mut keys = Self {
            facts,
            windows: Vec::new(),
            origin,
            latest: now,
        };
        keys.advance(now)?;
        Ok(keys)
    }

    /// What the keys say of the enclave.
    #[must_use]
    pub const fn facts(&self) -> &EnclaveFacts {
        &self.facts
    }

    /// Erases windows that are over, with their replay caches, and makes the secrets that are due. To be called at least
    /// once a second, and before every other call.
    ///
    /// # Errors
    /// [`WindowError::Random`].
    pub fn advance(&mut self, now: UnixTime) -> Result<(), WindowError> {
        self.latest = self.latest.max(now);
        let now = self.latest;
        self.windows.retain(|window| now < window.erase_at());
        let current = now.since(self.origin) / WINDOW;
        let next_is_due = now.plus(EARLY).since(self.origin) / WINDOW;
        for index in current..=next_is_due {
            if self.windows.iter().any(|window| window.index == index) {
                continue;
            }
            let mut secret = Box::new(Zeroizing::new([0u8; 32]));
            aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(|_| WindowError::Random)?;
            let start = self.origin.plus(index.saturating_mul(WINDOW));
            self.windows.push(Window {
                index,
                start,
                secret,
                issued: HashMap::new(),
                replay: ReplayCache::default(),
            });
        }
        Ok(())
    }

    /// When the next window secret is erased, for whoever calls [`advance`](Self::advance).
    #[must_use]
    pub fn next_erasure(&self) -> Option<UnixTime> {
        self.windows.iter().map(Window::erase_at).min()
    }

    /// The tenant's keys of the current window and, when it is out, the next one. The private halves are gone when this
    /// returns.
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn key_configs(
        &mut self,
        tenant: &TenantRef,
        identity: &SigningKey,
        now: UnixTime,
    ) -> Result<Vec<SignedKeyConfig>, WindowError> {
        self.advance(now)?;
        let now = self.latest;
        let mut configs = Vec::with_capacity(2);
        for window in self.windows.iter_mut().filter(|window| now < window.end()) {
            if let Some(issued) = window.issued.get(tenant) {
                configs.push(issued.clone());
                continue;
            }
            if window.issued.len() >= MAX_TENANTS {
                return Err(WindowError::TooManyTenants);
            }
            let issued = issue(&self.facts, window, tenant)?.sign(identity);
            window.issued.insert(*tenant, issued.clone());
            configs.push(issued);
        }
        Ok(configs)
    }

    /// The first step for a request: it is live, for this model, and one of its wraps is for a live key of this enclave.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn find<'a>(&self, outer: &'a OuterRequest, now: UnixTime) -> Result<LiveKey<'a>, Refused> {
        let now = self.latest.max(now);
        let header = outer.header();
        if !header.is_live(now) {
            return Err(Reason::NotLive.into());
        }
        if header.model != self.facts.model {
            return Err(Reason::OtherModel.into());
        }
        let mut reason = Reason::UnknownKey;
        for wrap in outer.wraps() {
            for window in self.windows.iter().filter(|window| now < window.erase_at()) {
                let Some(issued) = window.key(&header.tenant_ref, &wrap.key_id()) else {
                    continue;
                };
                // So a request's life ends before its window is erased (the longest life is the grace time): it cannot
                // come back under a second window that it names, whose replay cache does not know it.
                if header.created >= window.end() {
                    reason = Reason::WindowEnded;
                    continue;
                }
                return Ok(LiveKey {
                    window: window.index,
                    config_hash: issued.hash(),
                    wrap,
                });
            }
        }
        Err(reason.into())
    }

    /// Opens the wrap and holds the DEK against the header's commitment. Only under a permit of the tenant's lease.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn open(&self, key: &LiveKey<'_>, outer: &OuterRequest) -> Result<AwaitingAuth, Refused> {
        let header = outer.header();
        let window = self.window(key.window).ok_or(Reason::UnknownKey)?;
        let (private, _) = suite::tenant_key_pair(&window.secret, &header.tenant_ref).map_err(|_| Reason::Wrap)?;
        let (dek, exporter) = suite::open_wrap(&private, &key.config_hash, &outer.header_hash(), key.wrap.sealed())
            .map_err(|_| Reason::Wrap)?;
        let commitment = suite::dek_commit(&dek).map_err(|_| Reason::Commitment)?;
        if !bool::from(commitment.ct_eq(&header.dek_commit)) {
            return Err(Reason::Commitment.into());
        }
        AwaitingAuth::new(outer, key.wrap.key_id(), &dek, exporter, self.facts.padding)
    }

    /// Takes an authenticated request once per window.
    ///
    /// # Errors
    /// [`ReplayError`]; a window that was erased meanwhile counts as a replay, since nothing can tell any more.
    pub fn admit(&mut self, request: &OpenedRequest) -> Result<(), ReplayError> {
        self.windows
            .iter_mut()
            .find(|window| window.key(request.tenant_ref(), &request.key_id()).is_some())
            .ok_or(ReplayError::Replayed)?
            .replay
            .admit(&request.tenant(), &request.header_hash())
    }

    fn window(&self, index: u64) -> Option<&Window> {
        self.windows.iter().find(|window| window.index == index)
    }
}

fn issue(facts: &EnclaveFacts, window: &Window, tenant: &TenantRef) -> Result<KeyConfig, WindowError> {
    let (_, public) = suite::tenant_key_pair(&window.secret, tenant).map_err(|_| WindowError::Derive)?;
    let mut config = KeyConfig {
        tee: facts.tee,
        key_id: KeyId::from_bytes([0; 16]),
        public_key: Box::new(public),
        enclave_id: facts.enclave_id,
        boot_id: facts.boot_id,
        tenant_ref: *tenant,
        model: facts.model,
        served_model_name: facts.served_model_name.clone(),
        workload: facts.workload,
        switch_isolation: facts.switch_isolation,
        window: window.index,
        not_before: window.start,
        not_after: window.end(),
        padding: facts.padding,
    };
    config.key_id = config.derive_key_id();
    Ok(config)
}
