//! The decision: who gets a lease, which lease ends, what is dispatched.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    lease::{Command, LeaseState, Load},
    queue::Pending,
    scheduler::Scheduler,
    types::{Action, Moment, ReplicaIndex, TenantIndex, Ticket},
};

/// Oldest requests of each tenant that may ask for a lease; those behind them wait until they are among them.
const LOOKAHEAD: usize = 64;

/// Longest time for which a scrub counts as about to end. After it (and the drain cap) a waiting tenant may end another lease too.
const SCRUB_ALLOWANCE: Duration = Duration::from_secs(10);

/// What one round of decisions has settled so far.
#[derive(Default)]
struct Round {
    /// Replicas that are about to be free, and for whom.
    reserved: BTreeMap<ReplicaIndex, TenantIndex>,
    /// How far each tenant's queue was gone through: those requests are provided for, or can only wait.
    settled: BTreeMap<TenantIndex, Cursor>,
}

#[derive(Clone, Copy, Default)]
struct Cursor {
    last: Option<Ticket>,
    seen: usize,
}

/// What a request can do about a lease.
#[derive(Clone, Copy)]
enum Step {
    /// It will be served without doing anything, or nothing can be done before `due`.
    Wait {
        due: Option<Moment>,
    },
    /// Wait for a replica that is about to be free.
    Reserve(ReplicaIndex, Option<Moment>),
    Grant(ReplicaIndex),
    Drain(ReplicaIndex),
}

impl Scheduler {
    pub(crate) fn plan(&mut self, now: Moment) {
        // Leases first, so that one whose quantum is spent takes no further requests.
        self.assign(now);
        if self.dispatch_all() {
            // What did not fit under `max_in_flight` now counts as waiting.
            self.assign(now);
        }
    }

    /// Grants and drains. Tenants take turns, each turn is at most one replica, so that no tenant takes all.
    fn assign(&mut self, now: Moment) {
        let mut round = Round::default();
        loop {
            let mut asking = self.asking(&mut round);
            if asking.is_empty() {
                break;
            }
            asking.sort_unstable();
            for (_, _, ticket, tenant) in asking {
                let Some(step) = self.step(now, tenant, ticket, &round) else {
                    continue;
                };
                self.take(step, tenant, &mut round);
            }
        }
    }

    /// The oldest request of each tenant that nothing provides for, with its rank: tenants that hold none of its candidates come first,
    /// then the least recently served, then the longest wait.
    fn asking(&self, round: &mut Round) -> Vec<(bool, u64, Ticket, TenantIndex)> {
        let mut asking = Vec::new();
        for (index, tenant) in self.tenants.iter().enumerate() {
            let index = TenantIndex(index);
            let mut cursor = round.settled.get(&index).copied().unwrap_or_default();
            let ahead = LOOKAHEAD.saturating_sub(cursor.seen);
            for (ticket, pending) in tenant.requests_after(cursor.last).take(ahead) {
                cursor.last = Some(ticket);
                cursor.seen = cursor.seen.saturating_add(1);
                if !self.is_provided(index, pending, round) {
                    asking.push((self.has_lease_for(index, pending), tenant.served, ticket, index));
                    break;
                }
            }
            round.settled.insert(index, cursor);
        }
        asking
    }

    /// A candidate is, or is about to be, this tenant's and has room.
    fn is_provided(&self, tenant: TenantIndex, pending: &Pending, round: &Round) -> bool {
        pending.candidates.iter().any(|candidate| {
            round.reserved.get(&candidate.replica) == Some(&tenant)
                || self.replicas.get(candidate.replica.0).is_some_and(|replica| {
                    replica.command == Some(Command::Grant(tenant)) || replica.admits(tenant, self.policy.max_in_flight)
                })
        })
    }

    fn has_lease_for(&self, tenant: TenantIndex, pending: &Pending) -> bool {
        pending.candidates.iter().any(|candidate| {
            self.replicas
                .get(candidate.replica.0)
                .is_some_and(|replica| replica.serves(tenant))
        })
    }

    fn step(&self, now: Moment, tenant: TenantIndex, ticket: Ticket, round: &Round) -> Option<Step> {
        let pending = self.tenants.get(tenant.0)?.request(ticket)?;
        if self.is_provided(tenant, pending, round) {
            return None;
        }
        let open = || {
            pending
                .candidates
                .iter()
                .map(|candidate| candidate.replica)
                .filter(|replica| !round.reserved.contains_key(replica))
                .filter_map(|index| self.replicas.get(index.0).map(|replica| (index, replica)))
        };

        let was_holder = |(_, replica): &(_, &crate::lease::Replica)| replica.last_holder == Some(tenant);
        let free = || open().filter(|(_, replica)| replica.is_free(now));
        if let Some((index, _)) = free().find(was_holder).or_else(|| free().next()) {
            return Some(Step::Grant(index));
        }
        if let Some((index, until)) = open().find_map(|(index, _)| Some((index, self.free_soon(now, index)?))) {
            return Some(Step::Reserve(index, Some(until)));
        }

        let has_lease = self.has_lease_for(tenant, pending);
        let next = open()
            .filter_map(|(index, _)| Some((self.ends(tenant, index, has_lease)?, index)))
            .min();
        Some(match next {
            Some((due, index)) if due <= now => Step::Drain(index),
            Some((due, _)) => Step::Wait { due: Some(due) },
            None => Step::Wait { due: None },
        })
    }

    /// A replica that becomes vacant, or may be commanded, without anybody doing anything; and until when to believe that.
    fn free_soon(&self, now: Moment, index: ReplicaIndex) -> Option<Moment> {
        let replica = self.replicas.get(index.0)?;
        let allowance = self.policy.drain_cap.saturating_add(SCRUB_ALLOWANCE);
        let until = match replica.state()? {
            LeaseState::Vacant if replica.command.is_none() => replica.pause_until,
            LeaseState::Held(_) if replica.command == Some(Command::Drain) => Moment::NEVER,
            LeaseState::Draining(_) | LeaseState::Scrubbing => replica.since.after(allowance),
            LeaseState::Vacant | LeaseState::Held(_) | LeaseState::Failed => return None,
        };
        (until > now).then_some(until)
    }

    /// When `waiting` may end the lease of another tenant. A tenant that has a lease for this request already may end only empty ones.
    fn ends(&self, waiting: TenantIndex, index: ReplicaIndex, has_lease: bool) -> Option<Moment> {
        let replica = self.replicas.get(index.0)?;
        let Some(LeaseState::Held(holder)) = replica.state() else {
            return None;
        };
        if holder == Some(waiting) || replica.command.is_some() {
            return None;
        }
        let tenant = holder.and_then(|tenant| self.tenants.get(tenant.0));
        let weight = tenant.map_or(1, |tenant| tenant.limits.weight.max(1));
        let spent = replica.since.after(self.policy.quantum.saturating_mul(weight));
        // What another scheduler dispatched is not known, so a foreign lease never counts as empty.
        let empty = replica.in_flight == 0 && tenant.is_some_and(|tenant| !tenant.is_waiting_for(index));
        let lingered = replica.empty_since.after(self.policy.linger);
        let due = match (empty, has_lease) {
            (true, false) => lingered.min(spent),
            (true, true) => lingered,
            (false, false) => spent,
            (false, true) => return None,
        };
        Some(due.max(replica.pause_until))
    }

    fn take(&mut self, step: Step, tenant: TenantIndex, round: &mut Round) {
        match step {
            Step::Wait { due } => {
                if let Some(due) = due {
                    self.note(due);
                }
            }
            Step::Reserve(index, until) => {
                round.reserved.insert(index, tenant);
                if let Some(until) = until {
                    self.note(until);
                }
            }
            Step::Grant(index) => {
                if let Some(expect) = self.command(index, Command::Grant(tenant)) {
                    self.mark_served(tenant);
                    self.actions.push(Action::Grant {
                        replica: index,
                        tenant,
                        expect,
                    });
                }
            }
            Step::Drain(index) => {
                round.reserved.insert(index, tenant);
                if let Some(expect) = self.command(index, Command::Drain) {
                    self.actions.push(Action::Drain { replica: index, expect });
                }
            }
        }
    }

    fn command(&mut self, index: ReplicaIndex, command: Command) -> Option<crate::Epoch> {
        let replica = self.replicas.get_mut(index.0)?;
        let epoch = replica.epoch()?;
        replica.command = Some(command);
        Some(epoch)
    }

    /// Dispatches what can be; says whether anything was.
    fn dispatch_all(&mut self) -> bool {
        let mut any = false;
        for index in (0..self.replicas.len()).map(ReplicaIndex) {
            while let Some((ticket, tenant)) = self.next_for(index) {
                let to = self.best_for(tenant, ticket).unwrap_or(index);
                self.dispatch(ticket, tenant, to);
                any = true;
            }
        }
        any
    }

    fn next_for(&self, index: ReplicaIndex) -> Option<(Ticket, TenantIndex)> {
        let replica = self.replicas.get(index.0)?;
        let tenant = replica.holder()?;
        if !replica.admits(tenant, self.policy.max_in_flight) {
            return None;
        }
        let ticket = self.tenants.get(tenant.0)?.waiting_for(index).next()?;
        Some((ticket, tenant))
    }

    /// The first candidate that admits and is not full, else the first that admits.
    fn best_for(&self, tenant: TenantIndex, ticket: Ticket) -> Option<ReplicaIndex> {
        let pending = self.tenants.get(tenant.0)?.request(ticket)?;
        let admitting = || {
            pending.candidates.iter().filter_map(|candidate| {
                let replica = self.replicas.get(candidate.replica.0)?;
                replica
                    .admits(tenant, self.policy.max_in_flight)
                    .then_some((candidate.replica, replica.load()))
            })
        };
        admitting()
            .find(|(_, load)| *load != Load::Full)
            .or_else(|| admitting().next())
            .map(|(index, _)| index)
    }
}
