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

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Option<TenantIndex> = Some(TenantIndex(1));
    const TWO: Option<TenantIndex> = Some(TenantIndex(2));

    fn report(boot: u8, number: u64, state: LeaseState) -> LeaseReport {
        let boot = BootId([boot; 16]);
        LeaseReport {
            epoch: Epoch { boot, number },
            state,
            load: Load::Low,
        }
    }

    fn replica(known: LeaseReport) -> Replica {
        let mut replica = Replica::new(Moment(0));
        let first = replica.observe(Moment(1), Source::Stream, known);
        assert_eq!(
            first,
            Observed::Moved {
                ended: None,
                rebooted: true
            }
        );
        replica
    }

    #[test]
    fn an_older_report_changes_nothing() {
        let held = report(1, 5, LeaseState::Held(ONE));
        for old in [report(1, 4, LeaseState::Scrubbing), report(1, 5, LeaseState::Vacant)] {
            let mut replica = replica(held);
            assert_eq!(replica.observe(Moment(2), Source::Stream, old), Observed::Stale);
            assert_eq!((replica.epoch(), replica.holder()), (Some(held.epoch), ONE));
        }
    }

    #[test]
    fn a_report_of_the_same_state_brings_its_load_only() {
        let held = report(1, 5, LeaseState::Held(ONE));
        let mut replica = replica(held);
        replica.in_flight = 3;
        let fuller = LeaseReport {
            load: Load::Full,
            ..held
        };
        assert_eq!(replica.observe(Moment(2), Source::Reply, fuller), Observed::Same);
        assert_eq!(
            (replica.load(), replica.in_flight, replica.since),
            (Load::Full, 3, Moment(1))
        );
    }

    #[test]
    fn a_later_state_of_the_epoch_moves_on_and_keeps_what_is_in_flight() {
        let mut replica = replica(report(1, 5, LeaseState::Held(ONE)));
        replica.in_flight = 3;
        let moved = replica.observe(Moment(2), Source::Reply, report(1, 5, LeaseState::Draining(ONE)));
        assert_eq!(
            moved,
            Observed::Moved {
                ended: None,
                rebooted: false
            }
        );
        assert_eq!(
            (replica.in_flight, replica.since, replica.last_holder),
            (3, Moment(2), ONE)
        );
    }

    #[test]
    fn a_lease_ends_with_its_holder_and_with_its_epoch() {
        let held = report(1, 5, LeaseState::Held(ONE));
        for next in [
            report(1, 5, LeaseState::Scrubbing),
            report(1, 5, LeaseState::Held(TWO)),
            report(1, 6, LeaseState::Held(ONE)),
        ] {
            let mut replica = replica(held);
            replica.in_flight = 3;
            let moved = replica.observe(Moment(2), Source::Stream, next);
            assert_eq!(
                moved,
                Observed::Moved {
                    ended: ONE,
                    rebooted: false
                },
                "{next:?}"
            );
            let left = if next.epoch == held.epoch { 3 } else { 0 };
            assert_eq!(replica.in_flight, left, "{next:?}");
        }
    }

    #[test]
    fn only_the_stream_announces_another_boot() {
        let other = report(2, 0, LeaseState::Scrubbing);
        let mut replica = replica(report(1, 5, LeaseState::Held(ONE)));
        assert_eq!(replica.observe(Moment(2), Source::Reply, other), Observed::Stale);
        let moved = replica.observe(Moment(3), Source::Stream, other);
        assert_eq!(
            moved,
            Observed::Moved {
                ended: ONE,
                rebooted: true
            }
        );
        assert_eq!(replica.boot(), Some(BootId([2; 16])));
    }

    #[test]
    fn a_lease_is_empty_from_the_end_of_its_last_request_on() {
        let held = report(1, 5, LeaseState::Held(ONE));
        let mut replica = replica(held);
        replica.in_flight = 2;
        replica.release(Moment(7), held.epoch);
        assert_eq!((replica.in_flight, replica.empty_since), (1, Moment(1)));
        let earlier = report(1, 4, LeaseState::Held(ONE)).epoch;
        replica.release(Moment(8), earlier);
        assert_eq!(
            (replica.in_flight, replica.empty_since),
            (1, Moment(1)),
            "of another epoch"
        );
        replica.release(Moment(9), held.epoch);
        assert_eq!((replica.in_flight, replica.empty_since), (0, Moment(9)));
    }
}
