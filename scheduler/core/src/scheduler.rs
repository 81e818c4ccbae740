use std::collections::{BTreeMap, BTreeSet};

use crate::{
    lease::{Command, LeaseReport, LeaseState, Observed, Replica, Source},
    queue::{Pending, Tenant},
    types::{
        Action, Candidate, Epoch, InvalidPolicy, MAX_CANDIDATES, Moment, Policy, Rejection, ReplicaIndex, Request,
        TenantIndex, TenantLimits, Ticket,
    },
};

/// All tenants, queues and replicas of one scheduler.
///
/// Each method that takes `now` returns what has to be done, in order. Call [`tick`](Self::tick) at [`next_wakeup`](Self::next_wakeup).
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) policy: Policy,
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) replicas: Vec<Replica>,
    requests: BTreeMap<Ticket, Place>,
    /// Queued requests by when something about them expires.
    expiry: BTreeSet<(Moment, Ticket)>,
    next_ticket: u64,
    /// Logical clock of [`Tenant::served`].
    served: u64,
    /// Replicas whose loss is known to the requests that wait for them.
    lost: BTreeSet<ReplicaIndex>,
    /// When a decision that was not yet due will be.
    pub(crate) due: Option<Moment>,
    pub(crate) actions: Vec<Action>,
}

#[derive(Debug)]
enum Place {
    Queued(TenantIndex),
    Running {
        tenant: TenantIndex,
        candidate: Candidate,
        epoch: Epoch,
        /// With the candidates that are left.
        pending: Pending,
    },
}

impl Scheduler {
    /// A scheduler that has heard of no replica yet: all `replicas` count as unreachable since `now`.
    ///
    /// # Errors
    /// A policy under which nothing could run.
    pub fn new(
        policy: Policy,
        tenants: impl IntoIterator<Item = TenantLimits>,
        replicas: usize,
        now: Moment,
    ) -> Result<Self, InvalidPolicy> {
        policy.validate()?;
        Ok(Self {
            policy,
            tenants: tenants.into_iter().map(Tenant::new).collect(),
            replicas: (0..replicas).map(|_| Replica::new(now)).collect(),
            requests: BTreeMap::new(),
            expiry: BTreeSet::new(),
            next_ticket: 0,
            served: 0,
            lost: BTreeSet::new(),
            due: None,
            actions: Vec::new(),
        })
    }

    /// Takes a request in. Its ticket is new; the actions may already answer it.
    pub fn submit(&mut self, now: Moment, request: Request) -> (Ticket, Vec<Action>) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket = self.next_ticket.saturating_add(1);
        let Request {
            tenant,
            candidates,
            deadline,
        } = request;
        self.enqueue(now, ticket, tenant, candidates, deadline);
        (ticket, self.decide(now))
    }

    /// The client is gone, or the dispatched request has ended. An unknown ticket changes nothing.
    pub fn finish(&mut self, now: Moment, ticket: Ticket) -> Vec<Action> {
        match self.requests.remove(&ticket) {
            Some(Place::Queued(tenant)) => {
                self.unqueue(tenant, ticket);
            }
            Some(Place::Running { candidate, epoch, .. }) => self.release(now, candidate.replica, epoch),
            None => {}
        }
        self.decide(now)
    }

    /// The replica failed before it answered the dispatched request, which goes back to its place in the queue, without that candidate.
    pub fn retry(&mut self, now: Moment, ticket: Ticket) -> Vec<Action> {
        self.requeue(now, ticket, false);
        self.decide(now)
    }

    /// The replica refused the dispatched request, which it therefore never ran. Where the end of the lease explains that, since the
    /// request and the drain passed each other, the candidate stays one; else this is [`retry`](Self::retry).
    pub fn refused(&mut self, now: Moment, ticket: Ticket) -> Vec<Action> {
        self.requeue(now, ticket, true);
        self.decide(now)
    }

    /// A message of the replica's status stream, which thereby is up.
    pub fn report(&mut self, now: Moment, replica: ReplicaIndex, report: LeaseReport) -> Vec<Action> {
        if let Some(known) = self.replicas.get_mut(replica.0) {
            known.unreachable_since = None;
            self.lost.remove(&replica);
            self.observe(now, replica, Source::Stream, report);
        }
        self.decide(now)
    }

    /// The answer to the replica's outstanding command.
    pub fn replied(&mut self, now: Moment, replica: ReplicaIndex, applied: bool, report: LeaseReport) -> Vec<Action> {
        self.end_command(now, replica, applied);
        self.observe(now, replica, Source::Reply, report);
        self.decide(now)
    }

    /// The outstanding command got no answer: nobody knows whether it took effect. The next report says.
    pub fn command_failed(&mut self, now: Moment, replica: ReplicaIndex) -> Vec<Action> {
        self.end_command(now, replica, false);
        self.decide(now)
    }

    /// The status stream broke.
    pub fn unreachable(&mut self, now: Moment, replica: ReplicaIndex) -> Vec<Action> {
        if let Some(known) = self.replicas.get_mut(replica.0) {
            known.unreachable_since.get_or_insert(now);
        }
        self.decide(now)
    }

    /// Time passed.
    pub fn tick(&mut self, now: Moment) -> Vec<Action> {
        self.decide(now)
    }

    /// When [`tick`](Self::tick) has something to do even if nothing happens until then.
    pub fn next_wakeup(&self) -> Option<Moment> {
        let expiry = self.expiry.first().map(|(moment, _)| *moment);
        expiry.into_iter().chain(self.due).min()
    }

    /// Waiting requests of one tenant.
    pub fn queued(&self, tenant: TenantIndex) -> usize {
        self.tenants.get(tenant.0).map_or(0, Tenant::len)
    }

    /// Requests that are dispatched and have not ended, over all replicas and epochs.
    pub fn running(&self) -> usize {
        let running = |place: &&Place| matches!(place, Place::Running { .. });
        self.requests.values().filter(running).count()
    }

    /// The state of a replica, while it is reachable.
    pub fn lease(&self, replica: ReplicaIndex) -> Option<LeaseState> {
        self.replicas.get(replica.0)?.state()
    }

    /// The boot last reported by a replica.
    pub fn boot(&self, replica: ReplicaIndex) -> Option<crate::BootId> {
        self.replicas.get(replica.0)?.boot()
    }

    fn requeue(&mut self, now: Moment, ticket: Ticket, was_refused: bool) {
        let place = match self.requests.remove(&ticket) {
            Some(place @ Place::Queued(_)) => {
                self.requests.insert(ticket, place);
                return;
            }
            place => place,
        };
        let Some(Place::Running {
            tenant,
            candidate,
            epoch,
            mut pending,
        }) = place
        else {
            return;
        };
        self.release(now, candidate.replica, epoch);
        if was_refused && !self.is_held(candidate.replica, epoch, tenant) {
            pending.candidates.insert(0, candidate);
        }
        if pending.candidates.is_empty() {
            self.reject(ticket, Rejection::CandidateUnavailable);
        } else {
            self.enqueue(now, ticket, tenant, pending.candidates, pending.deadline);
        }
    }

    /// The lease is still the one of this epoch, and nobody has asked for its end.
    fn is_held(&self, replica: ReplicaIndex, epoch: Epoch, tenant: TenantIndex) -> bool {
        self.replicas.get(replica.0).is_some_and(|replica| {
            let drains = replica.command == Some(Command::Drain);
            replica.epoch() == Some(epoch) && replica.state() == Some(LeaseState::Held(Some(tenant))) && !drains
        })
    }

    fn decide(&mut self, now: Moment) -> Vec<Action> {
        self.due = None;
        self.expire(now);
        self.give_up(now);
        self.plan(now);
        std::mem::take(&mut self.actions)
    }

    /// Queues a request, or rejects it when it cannot be served.
    fn enqueue(&mut self, now: Moment, ticket: Ticket, tenant: TenantIndex, offered: Vec<Candidate>, deadline: Moment) {
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut gone = Rejection::UnknownKey;
        for candidate in offered.into_iter().take(MAX_CANDIDATES) {
            let Some(replica) = self.replicas.get(candidate.replica.0) else {
                continue;
            };
            if candidate.usable_until <= now {
                gone = Rejection::WindowEnded;
            } else if replica.boot().is_none_or(|boot| boot == candidate.boot)
                && candidates.iter().all(|other| other.replica != candidate.replica)
            {
                candidates.push(candidate);
            }
        }
        let pending = Pending { candidates, deadline };
        let full = self.tenants.get(tenant.0).is_none_or(Tenant::is_full);
        let refusal = if deadline <= now {
            Some(Rejection::Expired)
        } else if pending.candidates.is_empty() {
            Some(gone)
        } else if self.is_hopeless(now, &pending) {
            Some(Rejection::CandidateUnavailable)
        } else if full {
            Some(Rejection::QueueFull)
        } else {
            None
        };
        match refusal {
            Some(reason) => self.reject(ticket, reason),
            None => self.insert(ticket, tenant, pending),
        }
    }

    fn insert(&mut self, ticket: Ticket, tenant: TenantIndex, pending: Pending) {
        if let Some(queue) = self.tenants.get_mut(tenant.0) {
            self.expiry.insert((pending.expires(), ticket));
            self.requests.insert(ticket, Place::Queued(tenant));
            queue.insert(ticket, pending);
        }
    }

    fn unqueue(&mut self, tenant: TenantIndex, ticket: Ticket) -> Option<Pending> {
        let pending = self.tenants.get_mut(tenant.0)?.remove(ticket)?;
        self.expiry.remove(&(pending.expires(), ticket));
        Some(pending)
    }

    fn reject(&mut self, ticket: Ticket, reason: Rejection) {
        self.requests.remove(&ticket);
        self.actions.push(Action::Reject { ticket, reason });
    }

    fn release(&mut self, now: Moment, replica: ReplicaIndex, epoch: Epoch) {
        if let Some(replica) = self.replicas.get_mut(replica.0) {
            replica.release(now, epoch);
        }
    }

    /// Moves a queued request to the replica.
    pub(crate) fn dispatch(&mut self, ticket: Ticket, tenant: TenantIndex, to: ReplicaIndex) {
        let Some(mut pending) = self.unqueue(tenant, ticket) else {
            return;
        };
        let candidates = std::mem::take(&mut pending.candidates);
        let (chosen, left): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|candidate| candidate.replica == to);
        pending.candidates = left;
        let epoch = self.replicas.get(to.0).and_then(Replica::epoch);
        let (Some(&candidate), Some(epoch)) = (chosen.first(), epoch) else {
            return;
        };
        if let Some(replica) = self.replicas.get_mut(to.0) {
            replica.in_flight = replica.in_flight.saturating_add(1);
        }
        let place = Place::Running {
            tenant,
            candidate,
            epoch,
            pending,
        };
        self.requests.insert(ticket, place);
        self.actions.push(Action::Dispatch { ticket, replica: to });
    }

    fn end_command(&mut self, now: Moment, replica: ReplicaIndex, applied: bool) {
        if let Some(replica) = self.replicas.get_mut(replica.0) {
            replica.command = None;
            if !applied {
                replica.pause_until = now.after(self.policy.command_pause);
            }
        }
    }

    fn observe(&mut self, now: Moment, index: ReplicaIndex, source: Source, report: LeaseReport) {
        let Some(replica) = self.replicas.get_mut(index.0) else {
            return;
        };
        let Observed::Moved { ended, rebooted } = replica.observe(now, source, report) else {
            return;
        };
        if let Some(tenant) = ended {
            self.mark_served(tenant);
        }
        if rebooted {
            self.drop_keys(index);
        }
        self.lost.remove(&index);
    }

    /// The tenant goes to the end of the line.
    pub(crate) fn mark_served(&mut self, tenant: TenantIndex) {
        self.served = self.served.saturating_add(1);
        if let Some(tenant) = self.tenants.get_mut(tenant.0) {
            tenant.served = self.served;
        }
    }

    /// Takes the keys of another boot from the requests that wait for this replica.
    fn drop_keys(&mut self, replica: ReplicaIndex) {
        let boot = self.boot(replica);
        for (tenant, ticket) in self.waiting_for(replica) {
            let Some(mut pending) = self.unqueue(tenant, ticket) else {
                continue;
            };
            pending
                .candidates
                .retain(|candidate| candidate.replica != replica || Some(candidate.boot) == boot);
            if pending.candidates.is_empty() {
                self.reject(ticket, Rejection::UnknownKey);
            } else {
                self.insert(ticket, tenant, pending);
            }
        }
    }

    /// Rejects what is past its deadline and drops keys that are erased.
    fn expire(&mut self, now: Moment) {
        while let Some(&(moment, ticket)) = self.expiry.first() {
            if moment > now {
                break;
            }
            self.expiry.remove(&(moment, ticket));
            let Some(&Place::Queued(tenant)) = self.requests.get(&ticket) else {
                continue;
            };
            let Some(mut pending) = self.unqueue(tenant, ticket) else {
                continue;
            };
            pending.candidates.retain(|candidate| candidate.usable_until > now);
            if pending.deadline <= now {
                self.reject(ticket, Rejection::Expired);
            } else if pending.candidates.is_empty() {
                self.reject(ticket, Rejection::WindowEnded);
            } else {
                self.insert(ticket, tenant, pending);
            }
        }
    }

    /// Rejects requests whose last candidate was lost. Each loss is looked at once.
    fn give_up(&mut self, now: Moment) {
        for index in (0..self.replicas.len()).map(ReplicaIndex) {
            if self.lost.contains(&index) {
                continue;
            }
            if self.is_lost(now, index) {
                self.lost.insert(index);
                for (tenant, ticket) in self.waiting_for(index) {
                    let hopeless = self
                        .tenants
                        .get(tenant.0)
                        .and_then(|queue| queue.request(ticket))
                        .is_some_and(|pending| self.is_hopeless(now, pending));
                    if hopeless {
                        self.unqueue(tenant, ticket);
                        self.reject(ticket, Rejection::CandidateUnavailable);
                    }
                }
            } else if let Some(since) = self.replicas.get(index.0).and_then(|replica| replica.unreachable_since) {
                self.note(since.after(self.policy.unreachable_grace));
            }
        }
    }

    fn is_lost(&self, now: Moment, index: ReplicaIndex) -> bool {
        self.replicas
            .get(index.0)
            .is_none_or(|replica| match replica.unreachable_since {
                Some(since) => since.after(self.policy.unreachable_grace) <= now,
                None => replica.state() == Some(LeaseState::Failed),
            })
    }

    fn is_hopeless(&self, now: Moment, pending: &Pending) -> bool {
        pending
            .candidates
            .iter()
            .all(|candidate| self.is_lost(now, candidate.replica))
    }

    fn waiting_for(&self, replica: ReplicaIndex) -> Vec<(TenantIndex, Ticket)> {
        self.tenants
            .iter()
            .enumerate()
            .flat_map(|(index, tenant)| {
                tenant
                    .waiting_for(replica)
                    .map(move |ticket| (TenantIndex(index), ticket))
            })
            .collect()
    }

    /// Asks for a tick at `moment`.
    pub(crate) fn note(&mut self, moment: Moment) {
        self.due = Some(self.due.map_or(moment, |due| due.min(moment)));
    }
}
