//! What the parts of the enclave share.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use cloister_attestation::{BootId, Evidence, UnixTime, Workload, enclave_id};
use cloister_enclave_attester::{Attester, AttesterError};
use cloister_enclave_engine::Engine;
use cloister_enclave_lease::Millis;
use cloister_enclave_openai::FilterOptions;
use cloister_session::{
    TenantRef,
    credential::SaltScope,
    enclave::OpenedRequest,
    key_config::{PaddingProfile, SignedKeyConfig},
    replay::ReplayError,
    signing::{KeyError, SigningKey},
    window::{EnclaveFacts, WindowError, WindowKeys},
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    answer::TOTAL_BACKLOG,
    clock::Clock,
    leases::{Leases, random},
    load::LoadLevel,
    metrics::Metrics,
    outbox::Budget,
};

/// One enclave process: identity, keys, lease, engine.
pub struct Enclave {
    /// Its own time.
    pub clock: Clock,
    /// What every key and receipt says of it.
    pub facts: EnclaveFacts,
    /// The lease of its one replica.
    pub leases: Arc<Leases>,
    /// The engine that it owns.
    pub engine: Arc<dyn Engine>,
    /// What of the engine's answers goes out.
    pub filter: FilterOptions,
    /// Cluster for which credentials have to be made.
    pub cluster_id: String,
    /// A request has to be whole within this time after it was admitted.
    pub upload_timeout: Duration,
    pub(crate) identity: SigningKey,
    pub(crate) metrics: Metrics,
    /// Room for the ciphertext that waits for its readers.
    pub(crate) backlog: Arc<Budget>,
    workload: Workload,
    attester: Box<dyn Attester>,
    /// Shared while requests are opened, so that one decapsulation does not wait for another.
    keys: RwLock<WindowKeys>,
    load: Mutex<Published>,
    /// Root of the engine's cache salts: dies with the process.
    boot_secret: Zeroizing<[u8; 32]>,
}

/// Load is recomputed this often.
const LOAD_PERIOD: Millis = Millis(1000);

struct Published {
    level: LoadLevel,
    at: Millis,
}

/// Everything that an enclave is made of.
pub struct Parts {
    /// Its time.
    pub clock: Clock,
    /// What it is fixed to.
    pub workload: Workload,
    /// Where its evidence comes from.
    pub attester: Box<dyn Attester>,
    /// The lease.
    pub leases: Arc<Leases>,
    /// The boot that the lease counts epochs of.
    pub boot_id: BootId,
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// How answers are padded.
    pub padding: PaddingProfile,
    /// What of the engine's answers goes out.
    pub filter: FilterOptions,
    /// Cluster for which credentials have to be made.
    pub cluster_id: String,
    /// A request has to be whole within this time after it was admitted.
    pub upload_timeout: Duration,
}

/// An enclave that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// No identity key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No key window.
    #[error(transparent)]
    Window(#[from] WindowError),
}

impl Enclave {
    /// Makes the identity, which never leaves, and the first key window. The workload is fixed by now.
    ///
    /// # Errors
    /// [`AssembleError`].
    pub fn assemble(parts: Parts) -> Result<Arc<Self>, AssembleError> {
        let identity = SigningKey::generate()?;
        let workload_digest = parts.workload.digest();
        let facts = EnclaveFacts {
            tee: parts.attester.tee(),
            enclave_id: enclave_id(&identity.public(), &parts.boot_id, &workload_digest),
            boot_id: parts.boot_id,
            model: parts.workload.model,
            served_model_name: parts.workload.served_model_name.clone(),
            workload: workload_digest,
            switch_isolation: parts.workload.switch_isolation,
            padding: parts.padding,
        };
        let phase = u64::from_be_bytes(random());
        let keys = WindowKeys::new(facts.clone(), phase, parts.clock.now())?;
        Ok(Arc::new(Self {
            clock: parts.clock,
            facts,
            leases: parts.leases,
            engine: parts.engine,
            filter: parts.filter,
            cluster_id: parts.cluster_id,
            upload_timeout: parts.upload_timeout,
            identity,
            metrics: Metrics::new(),
            backlog: Budget::new(TOTAL_BACKLOG),
            workload: parts.workload,
            attester: parts.attester,
            keys: RwLock::new(keys),
            load: Mutex::new(Published {
                level: LoadLevel::Idle,
                at: Millis(0),
            }),
            boot_secret: Zeroizing::new(random()),
        }))
    }

    /// How answers are padded.
    #[must_use]
    pub const fn padding(&self) -> PaddingProfile {
        self.facts.padding
    }

    /// The tenant's signed keys.
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn key_configs(&self, tenant: &TenantRef) -> Result<Vec<SignedKeyConfig>, WindowError> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.key_configs(tenant, &self.identity, self.clock.now())
    }

    /// Fresh evidence over a client's nonce. Blocks for milliseconds.
    ///
    /// # Errors
    /// [`AttesterError`].
    pub fn evidence(&self, nonce: [u8; 32]) -> Result<Evidence, AttesterError> {
        let collected = self.attester.evidence(&nonce, &self.facts.enclave_id)?;
        Ok(Evidence {
            identity_key: self.identity.public(),
            boot_id: self.facts.boot_id,
            workload: self.workload.clone(),
            bundle: collected.into_bundle(&nonce),
        })
    }

    /// The key windows, for finding and opening.
    pub(crate) fn keys(&self) -> RwLockReadGuard<'_, WindowKeys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an authenticated request once per window.
    pub(crate) fn admit(&self, request: &OpenedRequest) -> Result<(), ReplayError> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).admit(request)
    }

    /// Load as a scheduler may know it: recomputed at most once a second, whoever asks.
    pub(crate) fn load(&self) -> LoadLevel {
        let now = self.clock.millis();
        let mut published = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(published.at) >= LOAD_PERIOD {
            let capacity = self
                .engine
                .capabilities()
                .and_then(|capabilities| capabilities.parallel);
            let level = published.level.next(self.leases.in_flight(), capacity);
            *published = Published { level, at: now };
        }
        published.level
    }

    /// Erases key windows when they are over, whether or not anything is asked. Returns when `stop` is cancelled.
    pub async fn erase_windows(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let due = {
                let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = keys.advance(self.clock.now()) {
                    tracing::error!(%error, "no new key window");
                }
                keys.next_erasure().unwrap_or(UnixTime(0))
            };
            // Never longer than a minute, so that a clock that stood still is noticed.
            let wait = due.since(self.clock.now()).clamp(1, 60);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(wait)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// The engine's cache salt of a request: from the boot's secret, tenant, epoch and salt scope, each with its length, so
    /// that no two scopes ever share one.
    pub(crate) fn cache_salt(&self, request: &OpenedRequest, epoch: u64) -> Zeroizing<String> {
        let member = match request.salt_scope() {
            SaltScope::Member => request.member().spki_der().to_vec(),
            SaltScope::Tenant => Vec::new(),
        };
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, self.boot_secret.as_slice());
        let mut context = aws_lc_rs::hmac::Context::with_key(&key);
        let (tenant, epoch) = (request.tenant(), epoch.to_be_bytes());
        let parts: [&[u8]; 4] = [b"cloister/v1 cache-salt", tenant.as_bytes(), &epoch, &member];
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        Zeroizing::new(hex::encode(context.sign().as_ref()))
    }
}
