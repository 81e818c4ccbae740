//! The lease machine with its driver: permits as guards, revocation as a token, scrubs as they become due.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cloister_attestation::BootId;
use cloister_enclave_engine::{Engine, EngineStatus, Ledger, ScrubContext, ScrubProof};
use cloister_enclave_lease::{
    Account, Action, Call, Epoch, LeaseMachine, Limits, NotHeld, OtherTenant, Permit, Status,
};
use cloister_session::{TenantId, TenantRef};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{clock::Clock, metrics::Metrics};

/// Leases of this enclave's one replica.
pub struct Leases {
    inner: Mutex<Inner>,
    clock: Clock,
    boot_id: BootId,
    status: watch::Sender<Status>,
    /// Something changed that may make an action due.
    wake: Notify,
    metrics: Metrics,
}

struct Inner {
    machine: LeaseMachine,
    /// Cancelled when an epoch's permits are revoked.
    revocations: HashMap<u64, CancellationToken>,
    /// A cache salt that the epoch's requests ran under, for the probe of its scrub.
    salt: Option<Zeroizing<String>>,
}

impl Leases {
    /// Starts in `Scrubbing(0)`; nothing happens before [`drive`](Self::drive) runs.
    #[must_use]
    pub fn new(boot_id: BootId, limits: Limits, clock: Clock) -> Arc<Self> {
        let machine = LeaseMachine::new(boot_id, limits);
        let (status, _) = watch::channel(machine.status());
        Arc::new(Self {
            inner: Mutex::new(Inner {
                machine,
                revocations: HashMap::new(),
                salt: None,
            }),
            clock,
            boot_id,
            status,
            wake: Notify::new(),
            metrics: Metrics::new(),
        })
    }

    /// The state now, and each change of it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Permits and calls that are out.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.lock().machine.in_flight()
    }

    /// A scheduler's `Grant`.
    pub fn grant(&self, tenant: TenantRef, expect: Epoch) -> (bool, Status) {
        self.change(|machine, now| machine.grant(tenant, expect, now))
    }

    /// A scheduler's `Drain`.
    pub fn drain(&self, expect: Epoch) -> (bool, Status) {
        self.change(|machine, now| machine.drain(expect, now))
    }

    /// A scheduler's `Status`, or another sign that one is there.
    pub fn contact(&self) -> Status {
        self.change(|machine, now| machine.contact(now)).1
    }

    /// A permit for a request of `tenant`.
    ///
    /// # Errors
    /// [`NotHeld`].
    pub fn admit(self: &Arc<Self>, tenant: &TenantRef) -> Result<PermitGuard, NotHeld> {
        let mut inner = self.lock();
        let now = self.clock.millis();
        let permit = inner.machine.admit(tenant, now)?;
        let revoked = inner.revocations.entry(permit.epoch()).or_default().clone();
        Ok(PermitGuard {
            leases: Arc::clone(self),
            permit: Some(permit),
            revoked,
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut LeaseMachine, cloister_enclave_lease::Millis) -> T) -> (T, Status) {
        let mut inner = self.lock();
        let out = change(&mut inner.machine, self.clock.millis());
        let status = self.publish(&inner);
        drop(inner);
        self.wake.notify_one();
        (out, status)
    }

    /// Publishes the state, under the lock: a status that was read earlier never comes after a later one.
    fn publish(&self, inner: &Inner) -> Status {
        let status = inner.machine.status();
        self.status
            .send_if_modified(|old| std::mem::replace(old, status) != status);
        status
    }

    /// A panic while the lock is held would leave the machine in `Failed` or in a state that it checks anyway.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the machine: ticks, revocations, scrubs, and what becomes of the engine. Returns when `stop` is cancelled.
    pub async fn drive(self: Arc<Self>, engine: Arc<dyn Engine>, stop: CancellationToken) {
        let mut process = engine.status();
        loop {
            if let EngineStatus::Exited { .. } = *process.borrow_and_update() {
                self.engine_lost();
            }
            let (action, deadline) = self.tick();
            match action {
                Some(Action::Revoke { epoch }) => self.revoke(epoch),
                Some(Action::Scrub { epoch, restart }) => {
                    tokio::select! {
                        () = self.scrub(engine.as_ref(), epoch, restart) => {}
                        () = stop.cancelled() => return,
                    }
                }
                None => {
                    let sleep = deadline.unwrap_or(Duration::from_secs(3600));
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep(sleep) => {}
                        ended = process.changed() => if ended.is_err() { return },
                        () = stop.cancelled() => return,
                    }
                }
            }
        }
    }

    fn tick(&self) -> (Option<Action>, Option<Duration>) {
        let mut inner = self.lock();
        let now = self.clock.millis();
        let action = inner.machine.tick(now);
        let deadline = inner
            .machine
            .deadline()
            .map(|at| Duration::from_millis(at.since(now).0.max(1)));
        self.publish(&inner);
        drop(inner);
        (action, deadline)
    }

    fn engine_lost(&self) {
        let mut inner = self.lock();
        let action = inner.machine.engine_lost();
        self.publish(&inner);
        drop(inner);
        if let Some(Action::Revoke { epoch }) = action {
            tracing::warn!("the engine ended without having been asked to");
            self.revoke(epoch);
        }
    }

    fn revoke(&self, epoch: u64) {
        if let Some(token) = self.lock().revocations.remove(&epoch) {
            token.cancel();
        }
    }

    /// One scrub, with its proof or without.
    async fn scrub(&self, engine: &dyn Engine, epoch: u64, restart: bool) {
        let context = {
            let mut inner = self.lock();
            inner.revocations.remove(&epoch);
            let ledger = inner.machine.ledger();
            ScrubContext {
                boot_id: self.boot_id,
                epoch,
                nonce: random(),
                cache_salt: inner.salt.take(),
                ledger: Ledger {
                    begun: ledger.begun,
                    ended: ledger.ended,
                },
            }
        };
        let outcome = if restart {
            engine.restart(&context).await
        } else {
            engine.scrub(&context).await
        };
        self.metrics.scrub(restart, outcome.is_ok());
        let mut inner = self.lock();
        match outcome {
            Ok(proof) => accept(&mut inner.machine, epoch, &proof),
            Err(failure) => {
                tracing::warn!(%failure, restart, "the engine could not be proven empty");
                inner.machine.scrub_failed(epoch);
            }
        }
        self.publish(&inner);
        drop(inner);
    }
}

fn accept(machine: &mut LeaseMachine, epoch: u64, proof: &ScrubProof) {
    if !machine.scrubbed(epoch, proof.digest()) {
        machine.scrub_failed(epoch);
    }
}

/// 32 random bytes. A system without randomness cannot go on: the process ends.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        tracing::error!("no randomness from the system: stopping");
        std::process::abort();
    }
    bytes
}

/// A permit that gives itself back.
pub struct PermitGuard {
    leases: Arc<Leases>,
    permit: Option<Permit>,
    revoked: CancellationToken,
}

impl PermitGuard {
    /// The request's credential was good.
    ///
    /// # Errors
    /// [`OtherTenant`].
    pub fn identify(&mut self, tenant: &TenantId) -> Result<(), OtherTenant> {
        let permit = self.permit.as_mut().ok_or(OtherTenant)?;
        self.leases.lock().machine.identify(permit, tenant)
    }

    /// What the receipt says of the epoch.
    #[must_use]
    pub fn account(&self) -> Option<Account> {
        self.leases.lock().machine.account(self.permit.as_ref()?)
    }

    /// Counter of the epoch; 0, which no tenant ever has, for a permit that is spent.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.permit.as_ref().map_or(0, Permit::epoch)
    }

    /// Cancelled when the epoch's permits are revoked.
    #[must_use]
    pub fn revoked(&self) -> &CancellationToken {
        &self.revoked
    }

    /// Consumes the permit for a call that may reach the engine. `salt` is kept for the probe of the epoch's scrub.
    ///
    /// # Errors
    /// The permit, when its epoch is over or was revoked: to be dropped when the request's plaintext is erased.
    pub fn begin_call(mut self, salt: &Zeroizing<String>) -> Result<CallGuard, Self> {
        let Some(permit) = self.permit.take() else {
            return Err(self);
        };
        let leases = Arc::clone(&self.leases);
        let mut inner = leases.lock();
        match inner.machine.begin_call(permit) {
            Ok(call) => {
                inner.salt = Some(salt.clone());
                let revoked = self.revoked.clone();
                drop(inner);
                Ok(CallGuard {
                    leases,
                    call: Some(call),
                    revoked,
                })
            }
            Err(permit) => {
                drop(inner);
                self.permit = Some(permit);
                Err(self)
            }
        }
    }
}

impl Drop for PermitGuard {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.leases.lock().machine.give_back(permit);
            self.leases.wake.notify_one();
        }
    }
}

/// A call that ends itself. Held until nothing of the request is in the engine and no plaintext of it is left.
pub struct CallGuard {
    leases: Arc<Leases>,
    call: Option<Call>,
    revoked: CancellationToken,
}

impl CallGuard {
    /// Cancelled when the epoch's permits are revoked.
    #[must_use]
    pub fn revoked(&self) -> &CancellationToken {
        &self.revoked
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            self.leases.lock().machine.end_call(call);
            self.leases.wake.notify_one();
        }
    }
}
