//! The waiting requests of one tenant.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use crate::types::{Candidate, Moment, ReplicaIndex, TenantLimits, Ticket};

/// A request that is not answered yet.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// Those that were not tried and may still open the request, in order of preference.
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) deadline: Moment,
}

#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) limits: TenantLimits,
    /// Logical time of the last grant or end of a lease; 0 is never.
    pub(crate) served: u64,
    queue: BTreeMap<Ticket, Pending>,
    /// The same tickets by candidate.
    by_replica: BTreeMap<ReplicaIndex, BTreeSet<Ticket>>,
}

// === impl Pending ===

impl Pending {
    /// When it has to be looked at again: at the deadline, or when the first of its keys is gone.
    pub(crate) fn expires(&self) -> Moment {
        self.candidates
            .iter()
            .map(|candidate| candidate.usable_until)
            .fold(self.deadline, Moment::min)
    }
}

// === impl Tenant ===

impl Tenant {
    pub(crate) fn new(limits: TenantLimits) -> Self {
        Self {
            limits,
            served: 0,
            queue: BTreeMap::new(),
            by_replica: BTreeMap::new(),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= self.limits.max_queued
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn insert(&mut self, ticket: Ticket, pending: Pending) {
        for candidate in &pending.candidates {
            self.by_replica.entry(candidate.replica).or_default().insert(ticket);
        }
        self.queue.insert(ticket, pending);
    }

    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Pending> {
        let pending = self.queue.remove(&ticket)?;
        for candidate in &pending.candidates {
            if let Some(tickets) = self.by_replica.get_mut(&candidate.replica) {
                tickets.remove(&ticket);
                if tickets.is_empty() {
                    self.by_replica.remove(&candidate.replica);
                }
            }
        }
        Some(pending)
    }

    pub(crate) fn request(&self, ticket: Ticket) -> Option<&Pending> {
        self.queue.get(&ticket)
    }

    /// In order of arrival, from the first or from the one after `ticket`.
    pub(crate) fn requests_after(&self, ticket: Option<Ticket>) -> impl Iterator<Item = (Ticket, &Pending)> {
        let start = ticket.map_or(Bound::Unbounded, Bound::Excluded);
        self.queue
            .range((start, Bound::Unbounded))
            .map(|(ticket, pending)| (*ticket, pending))
    }

    /// Those with this candidate, in order of arrival.
    pub(crate) fn waiting_for(&self, replica: ReplicaIndex) -> impl Iterator<Item = Ticket> + '_ {
        self.by_replica.get(&replica).into_iter().flatten().copied()
    }

    pub(crate) fn is_waiting_for(&self, replica: ReplicaIndex) -> bool {
        self.by_replica.contains_key(&replica)
    }
}
