//! What is known about each replica, from its reports only.

use crate::types::{BootId, Epoch, Moment, TenantIndex};

/// State of a replica's lease as the enclave reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// Being brought to a proven clean state.
    Scrubbing,
    /// Clean and free.
    Vacant,
    /// Admitting requests of one tenant; `None` is a tenant that this scheduler does not know.
    Held(Option<TenantIndex>),
    /// Finishing what was admitted.
    Draining(Option<TenantIndex>),
    /// Never to be leased again.
    Failed,
}

/// Load in four levels: anything finer would be a trace of the one tenant that is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Load {
    /// Nothing runs.
    #[default]
    Idle,
    /// Less than half of the engine's batch.
    Low,
    /// More than half.
    High,
    /// Requests wait in the engine.
    Full,
}

/// One report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseReport {
    /// The epoch it is about.
    pub epoch: Epoch,
    /// The state in it.
    pub state: LeaseState,
    /// Coarse load.
    pub load: Load,
}

/// Where a report came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The status stream: in order, so it may announce a new boot.
    Stream,
    /// The answer to a command: may be overtaken by the stream, so it never changes the boot.
    Reply,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observed {
    /// Older than what is known.
    Stale,
    /// Nothing new but, perhaps, the load.
    Same,
    /// The state moved on.
    Moved {
        /// The tenant whose lease ended with it.
        ended: Option<TenantIndex>,
        /// It is the first report of this boot.
        rebooted: bool,
    },
}

/// A command that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Grant(TenantIndex),
    Drain,
}

#[derive(Clone, Debug)]
pub(crate) struct Replica {
    /// Last accepted report; kept while unreachable, so that an old report stays old.
    report: Option<LeaseReport>,
    /// `None` while the status stream is up.
    pub(crate) unreachable_since: Option<Moment>,
    pub(crate) command: Option<Command>,
    /// No command before this.
    pub(crate) pause_until: Moment,
    /// When the state last moved.
    pub(crate) since: Moment,
    /// When the lease last had nothing in flight; meaningful while held.
    pub(crate) empty_since: Moment,
    /// Requests dispatched in the present epoch that have not ended.
    pub(crate) in_flight: usize,
    /// The holder before the present one.
    pub(crate) last_holder: Option<TenantIndex>,
}

// === impl LeaseReport ===

impl LeaseReport {
    /// Position within a boot: the enclave only ever moves forward in this order.
    fn position(&self) -> (u64, u8) {
        let rank = match self.state {
            LeaseState::Vacant => 0,
            LeaseState::Held(_) => 1,
            LeaseState::Draining(_) => 2,
            LeaseState::Scrubbing => 3,
            LeaseState::Failed => 4,
        };
        (self.epoch.number, rank)
    }
}

// === impl Replica ===

impl Replica {
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            report: None,
            unreachable_since: Some(now),
            command: None,
            pause_until: now,
            since: now,
            empty_since: now,
            in_flight: 0,
            last_holder: None,
        }
    }

    /// Takes a report in, unless it is older than what is known.
    pub(crate) fn observe(&mut self, now: Moment, source: Source, report: LeaseReport) -> Observed {
        let rebooted = match &self.report {
            None => true,
            Some(known) if known.epoch.boot != report.epoch.boot => {
                if source == Source::Reply {
                    return Observed::Stale;
                }
                true
            }
            Some(known) if report.position() < known.position() => return Observed::Stale,
            Some(known) if report.position() == known.position() => {
                // A holder never changes within an epoch; a report that says so is kept for what it says: the enclave decides.
                let same = known.state == report.state;
                if same {
                    self.report = Some(report);
                    return Observed::Same;
                }
                false
            }
            Some(_) => false,
        };
        let new_epoch = self.report.is_none_or(|known| known.epoch != report.epoch);
        let before = self.holder();
        self.report = Some(report);
        self.since = now;
        self.empty_since = now;
        if new_epoch {
            self.in_flight = 0;
        }
        let ended = before.filter(|tenant| new_epoch || self.holder() != Some(*tenant));
        if let Some(tenant) = before {
            self.last_holder = Some(tenant);
        }
        Observed::Moved { ended, rebooted }
    }

    /// The state, while the replica is reachable.
    pub(crate) fn state(&self) -> Option<LeaseState> {
        self.report
            .filter(|_| self.unreachable_since.is_none())
            .map(|report| report.state)
    }

    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.report.map(|report| report.epoch)
    }

    pub(crate) fn boot(&self) -> Option<BootId> {
        self.report.map(|report| report.epoch.boot)
    }

    pub(crate) fn load(&self) -> Load {
        self.report.map_or(Load::Idle, |report| report.load)
    }

    /// Who holds or drains the lease.
    pub(crate) fn holder(&self) -> Option<TenantIndex> {
        match self.report?.state {
            LeaseState::Held(tenant) | LeaseState::Draining(tenant) => tenant,
            LeaseState::Scrubbing | LeaseState::Vacant | LeaseState::Failed => None,
        }
    }

    /// Requests of this tenant may be dispatched now.
    pub(crate) fn admits(&self, tenant: TenantIndex, max_in_flight: usize) -> bool {
        self.state() == Some(LeaseState::Held(Some(tenant))) && self.command.is_none() && self.in_flight < max_in_flight
    }

    /// A lease of this tenant exists or is on its way.
    pub(crate) fn serves(&self, tenant: TenantIndex) -> bool {
        self.command == Some(Command::Grant(tenant))
            || (self.state() == Some(LeaseState::Held(Some(tenant))) && self.command != Some(Command::Drain))
    }

    /// Vacant, and a grant may be sent.
    pub(crate) fn is_free(&self, now: Moment) -> bool {
        self.state() == Some(LeaseState::Vacant) && self.command.is_none() && self.pause_until <= now
    }

    /// One in-flight request of `epoch` ended.
    pub(crate) fn release(&mut self, now: Moment, epoch: Epoch) {
        if self.epoch() != Some(epoch) {
            return;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight == 0 {
            self.empty_since = now;
        }
    }
}
