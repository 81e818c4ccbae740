//! The machine: typed states, each transition consumes the one before.

use std::collections::HashMap;

use cloister_attestation::{BootId, Sha256Digest};
use cloister_session::{TenantId, TenantRef};

use crate::{
    permit::{Call, OtherTenant, Permit},
    state::{Epoch, Millis, NotHeld, State, Status},
};

/// Bounds of a lease; measured configuration of the enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// D: after so long in `Draining`, permits are revoked.
    pub drain_cap: Millis,
    /// The enclave drains by itself after so long in `Held`, whatever the scheduler says.
    pub max_hold: Millis,
    /// The enclave drains by itself after so long in `Held` with no permit out and no word from a scheduler.
    pub idle_hold: Millis,
    /// Most permits at once.
    pub max_in_flight: usize,
    /// Scrubs that may fail in a row before the replica is given up.
    pub max_scrub_failures: u32,
}

/// What the owner of the engine has to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Abort every call of this epoch and give its permits back; nothing of it may reach the engine any more.
    Revoke {
        /// Counter of the epoch.
        epoch: u64,
    },
    /// Empty the engine, then report [`LeaseMachine::scrubbed`] or [`LeaseMachine::scrub_failed`].
    Scrub {
        /// Counter of the epoch that ended.
        epoch: u64,
        /// Only a new engine process will do.
        restart: bool,
    },
}

/// Calls of one epoch as the enclave counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ledger {
    /// Calls that were begun.
    pub begun: u64,
    /// Calls that have ended, one way or another.
    pub ended: u64,
}

/// What a receipt says of its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Counter of the epoch.
    pub epoch: u64,
    /// Number of the request among those of the epoch, counted from 1.
    pub sequence: u64,
    /// Full tenant ids admitted in the epoch.
    pub distinct_tenants: u32,
    /// The proof that opened the epoch.
    pub scrub_proof: Sha256Digest,
}

struct Scrubbing {
    epoch: u64,
    /// The engine must be replaced: it was never ours, it died, or a scrub failed.
    restart: bool,
    failures: u32,
    /// The action was given out.
    started: bool,
}

struct Vacant {
    epoch: u64,
    proof: Sha256Digest,
}

struct Held {
    epoch: u64,
    proof: Sha256Digest,
    tenant_ref: TenantRef,
    /// Fixed by the first authenticated request.
    tenant: Option<TenantId>,
    since: Millis,
    last_contact: Millis,
    sequence: u64,
    ledger: Ledger,
}

struct Draining {
    held: Held,
    since: Millis,
    revoked: bool,
}

enum Inner {
    Scrubbing(Scrubbing),
    Vacant(Vacant),
    Held(Held),
    Draining(Draining),
    Failed(u64),
}

impl Scrubbing {
    fn proven(self, proof: Sha256Digest) -> Vacant {
        Vacant {
            epoch: self.epoch.saturating_add(1),
            proof,
        }
    }
}

impl Vacant {
    fn grant(self, tenant_ref: TenantRef, now: Millis) -> Held {
        Held {
            epoch: self.epoch,
            proof: self.proof,
            tenant_ref,
            tenant: None,
            since: now,
            last_contact: now,
            sequence: 0,
            ledger: Ledger::default(),
        }
    }
}

impl Held {
    fn drain(self, now: Millis) -> Draining {
        Draining {
            held: self,
            since: now,
            revoked: false,
        }
    }
}

impl Draining {
    fn drained(self) -> Scrubbing {
        Scrubbing {
            epoch: self.held.epoch,
            restart: false,
            failures: 0,
            started: false,
        }
    }
}

/// See the [crate].
pub struct LeaseMachine {
    boot_id: BootId,
    limits: Limits,
    /// Taken out only while a transition runs.
    inner: Inner,
    /// Permits and calls that are out, with the epoch that each is of.
    outstanding: HashMap<u64, u64>,
    next_id: u64,
    /// Ledger of the last epoch that ended, for its scrub.
    last_ledger: Ledger,
}

impl LeaseMachine {
    /// Starts in `Scrubbing(0)` with a forced restart of the engine: a new enclave never inherits one.
    #[must_use]
    pub fn new(boot_id: BootId, limits: Limits) -> Self {
        Self {
            boot_id,
            limits,
            inner: Inner::Scrubbing(Scrubbing {
                epoch: 0,
                restart: true,
                failures: 0,
                started: false,
            }),
            outstanding: HashMap::new(),
            next_id: 0,
            last_ledger: Ledger::default(),
        }
    }

    /// The state as a scheduler may see it.
    #[must_use]
    pub fn status(&self) -> Status {
        let (state, number, holder) = match &self.inner {
            Inner::Scrubbing(s) => (State::Scrubbing, s.epoch, None),
            Inner::Vacant(v) => (State::Vacant, v.epoch, None),
            Inner::Held(h) => (State::Held, h.epoch, Some(h.tenant_ref)),
            Inner::Draining(d) => (State::Draining, d.held.epoch, Some(d.held.tenant_ref)),
            Inner::Failed(epoch) => (State::Failed, *epoch, None),
        };
        Status {
            state,
            epoch: Epoch {
                boot_id: self.boot_id,
                number,
            },
            holder,
        }
    }

    /// Permits and calls that are out, of every epoch.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.outstanding.len()
    }

    /// Calls of the current epoch; of the last one while it is being scrubbed.
    #[must_use]
    pub const fn ledger(&self) -> Ledger {
        match &self.inner {
            Inner::Held(held) => held.ledger,
            Inner::Draining(draining) => draining.held.ledger,
            _ => self.last_ledger,
        }
    }

    /// A scheduler gives the replica to a tenant. Takes effect only in `Vacant` and for the expected epoch.
    pub fn grant(&mut self, tenant_ref: TenantRef, expect: Epoch, now: Millis) -> bool {
        if expect != self.status().epoch {
            return false;
        }
        self.step(|inner| match inner {
            Inner::Vacant(vacant) => (Inner::Held(vacant.grant(tenant_ref, now)), true),
            other => (other, false),
        })
    }

    /// A scheduler ends a lease. Takes effect only in `Held` and for the expected epoch.
    pub fn drain(&mut self, expect: Epoch, now: Millis) -> bool {
        if expect != self.status().epoch {
            return false;
        }
        self.step(|inner| match inner {
            Inner::Held(held) => (Inner::Draining(held.drain(now)), true),
            other => (other, false),
        })
    }

    /// A scheduler was heard of: a lease is not abandoned.
    pub fn contact(&mut self, now: Millis) {
        if let Inner::Held(held) = &mut self.inner {
            held.last_contact = now;
        }
    }

    /// A request of the holder may be opened.
    ///
    /// # Errors
    /// [`NotHeld`] in every other state, for every other tenant, and above the limit of permits.
    pub fn admit(&mut self, tenant_ref: &TenantRef, now: Millis) -> Result<Permit, NotHeld> {
        let Inner::Held(held) = &mut self.inner else {
            return Err(NotHeld);
        };
        if held.tenant_ref != *tenant_ref || self.outstanding.len() >= self.limits.max_in_flight {
            return Err(NotHeld);
        }
        held.last_contact = now;
        let id = self.next_id;
        self.next_id = self.next_id.saturating_add(1);
        self.outstanding.insert(id, held.epoch);
        Ok(Permit {
            id,
            epoch: held.epoch,
            identified: false,
        })
    }

    /// The request's credential was good: its tenant has the epoch from now on, or had it already.
    ///
    /// # Errors
    /// [`OtherTenant`] if another tenant has it under the same reference, and if the epoch is over.
    pub fn identify(&mut self, permit: &mut Permit, tenant: &TenantId) -> Result<(), OtherTenant> {
        let held = match &mut self.inner {
            Inner::Held(held) => held,
            Inner::Draining(draining) => &mut draining.held,
            _ => return Err(OtherTenant),
        };
        if held.epoch != permit.epoch || held.tenant.is_some_and(|owner| owner != *tenant) {
            return Err(OtherTenant);
        }
        held.tenant = Some(*tenant);
        permit.identified = true;
        Ok(())
    }

    /// Consumes the permit for a call to the engine, in one step with the check of its epoch.
    ///
    /// # Errors
    /// The permit, if the epoch is over or its permits were revoked, and if it was never identified: to be given back when
    /// the plaintext that was opened under it is erased.
    pub fn begin_call(&mut self, permit: Permit) -> Result<Call, Permit> {
        let held = match &mut self.inner {
            Inner::Held(held) => held,
            Inner::Draining(draining) if !draining.revoked => &mut draining.held,
            _ => return Err(permit),
        };
        if held.epoch != permit.epoch || !permit.identified {
            return Err(permit);
        }
        held.ledger.begun = held.ledger.begun.saturating_add(1);
        Ok(Call {
            id: permit.id,
            epoch: permit.epoch,
        })
    }

    /// Gives a permit back that became no call.
    #[expect(clippy::needless_pass_by_value, reason = "consumed: it may not be used again")]
    pub fn give_back(&mut self, permit: Permit) {
        self.outstanding.remove(&permit.id);
    }

    /// A call has ended: the engine has nothing of it any more, or its connection is closed, and its plaintext is erased.
    #[expect(clippy::needless_pass_by_value, reason = "consumed: it may not be used again")]
    pub fn end_call(&mut self, call: Call) {
        self.outstanding.remove(&call.id);
        // No state is left for another epoch's while a call is out, so the call is of the epoch that the ledger is of.
        let ledger = match &mut self.inner {
            Inner::Held(held) => &mut held.ledger,
            Inner::Draining(draining) => &mut draining.held.ledger,
            _ => &mut self.last_ledger,
        };
        ledger.ended = ledger.ended.saturating_add(1);
    }

    /// What the receipt of a request says of its epoch. `None` for a permit that is not identified, and when the epoch is
    /// over.
    pub fn account(&mut self, permit: &Permit) -> Option<Account> {
        let held = match &mut self.inner {
            Inner::Held(held) => held,
            Inner::Draining(draining) => &mut draining.held,
            _ => return None,
        };
        if held.epoch != permit.epoch || !permit.identified {
            return None;
        }
        held.sequence = held.sequence.saturating_add(1);
        Some(Account {
            epoch: held.epoch,
            sequence: held.sequence,
            distinct_tenants: u32::from(held.tenant.is_some()),
            scrub_proof: held.proof,
        })
    }

    /// The engine ended without having been asked to: whatever the state, it is scrubbed by a restart.
    pub fn engine_lost(&mut self) -> Option<Action> {
        let ledger = self.ledger();
        let (epoch, revoke) = match &self.inner {
            Inner::Failed(_) => return None,
            Inner::Scrubbing(s) => (s.epoch, false),
            Inner::Vacant(v) => (v.epoch, false),
            Inner::Held(h) => (h.epoch, true),
            Inner::Draining(d) => (d.held.epoch, true),
        };
        let failures = if let Inner::Scrubbing(s) = &self.inner {
            s.failures
        } else {
            0
        };
        self.last_ledger = ledger;
        self.inner = Inner::Scrubbing(Scrubbing {
            epoch,
            restart: true,
            failures,
            started: false,
        });
        revoke.then_some(Action::Revoke { epoch })
    }

    /// The engine was proven empty after `epoch`. Without a permit out, the replica becomes vacant.
    ///
    /// Returns whether it did: a proof of another epoch, or one that comes while permits are out, does not count.
    pub fn scrubbed(&mut self, epoch: u64, proof: Sha256Digest) -> bool {
        let idle = self.outstanding.is_empty();
        self.step(|inner| match inner {
            Inner::Scrubbing(scrubbing) if scrubbing.epoch == epoch && scrubbing.started && idle => {
                (Inner::Vacant(scrubbing.proven(proof)), true)
            }
            other => (other, false),
        })
    }

    /// The engine could not be proven empty: it will be restarted, and given up after too many failures in a row.
    pub fn scrub_failed(&mut self, epoch: u64) {
        let most = self.limits.max_scrub_failures;
        self.step(|inner| match inner {
            Inner::Scrubbing(s) if s.epoch == epoch => {
                let failures = s.failures.saturating_add(1);
                if failures > most {
                    (Inner::Failed(epoch), ())
                } else {
                    (
                        Inner::Scrubbing(Scrubbing {
                            epoch,
                            restart: true,
                            failures,
                            started: false,
                        }),
                        (),
                    )
                }
            }
            other => (other, ()),
        });
    }

    /// Time passes. To be called when [`deadline`](Self::deadline) comes and after every other call.
    pub fn tick(&mut self, now: Millis) -> Option<Action> {
        let limits = self.limits;
        let idle = self.outstanding.is_empty();
        self.step(|inner| match inner {
            Inner::Held(held) => {
                let abandoned = idle && now.since(held.last_contact) >= limits.idle_hold;
                let over = now.since(held.since) >= limits.max_hold;
                if over || abandoned {
                    (Inner::Draining(held.drain(now)), ())
                } else {
                    (Inner::Held(held), ())
                }
            }
            other => (other, ()),
        });
        if idle && let Inner::Draining(draining) = &self.inner {
            self.last_ledger = draining.held.ledger;
            self.step(|inner| match inner {
                Inner::Draining(draining) => (Inner::Scrubbing(draining.drained()), ()),
                other => (other, ()),
            });
        }
        match &mut self.inner {
            Inner::Draining(draining) if !draining.revoked && now.since(draining.since) >= limits.drain_cap => {
                draining.revoked = true;
                Some(Action::Revoke {
                    epoch: draining.held.epoch,
                })
            }
            Inner::Scrubbing(scrubbing) if !scrubbing.started && idle => {
                scrubbing.started = true;
                Some(Action::Scrub {
                    epoch: scrubbing.epoch,
                    restart: scrubbing.restart,
                })
            }
            _ => None,
        }
    }

    /// When time alone changes something.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        match &self.inner {
            Inner::Held(held) => {
                let over = held.since.plus(self.limits.max_hold);
                let abandoned = held.last_contact.plus(self.limits.idle_hold);
                Some(if self.outstanding.is_empty() {
                    over.min(abandoned)
                } else {
                    over
                })
            }
            Inner::Draining(draining) if !draining.revoked => Some(draining.since.plus(self.limits.drain_cap)),
            _ => None,
        }
    }

    /// Replaces the state by what `transition` makes of it.
    fn step<T>(&mut self, transition: impl FnOnce(Inner) -> (Inner, T)) -> T {
        let placeholder = Inner::Failed(self.status().epoch.number);
        let inner = std::mem::replace(&mut self.inner, placeholder);
        let (inner, out) = transition(inner);
        self.inner = inner;
        out
    }
}
