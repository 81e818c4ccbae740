//! Leases, fairness and pick: pure, with time passed in.
//!
//! A replica serves one tenant at a time. This crate decides which tenant gets which replica next, when a lease ends, and which
//! waiting request goes to which replica. It is told what happened (a request came, a replica reported its lease, a command failed)
//! and answers with [`Action`]s; whoever drives it does the input and output. There is no clock, no thread and no randomness in here.
//!
//! The scheduler is outside the trusted boundary: the enclave checks every [`Action`] again and refuses what is stale. What is decided
//! here can delay a tenant, never mix two.
//!
//! # Policy
//! - The least recently served backlogged tenant comes first; ties go to the longest wait.
//! - A lease stays while nobody else waits. With another tenant waiting it is drained when its quantum is spent, or when it has been
//!   empty for the linger time ([`Policy::linger`], the price of a switch: at most twice the cost of the best decision in hindsight).
//! - Among free replicas a tenant gets the one that it held last, else the first in its request's order of preference.
//! - Each waiting tenant causes at most one drain at a time per request that nothing else will serve.
//!
//! # Guarantees
//! - A request is dispatched only to a replica whose last report says that this request's tenant holds it, at most once per candidate,
//!   refusals by a replica whose lease has ended since not counted: what was refused was not run.
//! - At most one command per replica is outstanding, and its `expect` is the epoch last reported. Old news never undoes newer news:
//!   within one boot, reports move forward only.
//! - Each submitted request is answered by exactly one of [`Action::Dispatch`] and [`Action::Reject`], unless it is cancelled; each
//!   [`Scheduler::retry`] and [`Scheduler::refused`] starts that anew.
//! - No queue is longer than its tenant's [`TenantLimits::max_queued`].

mod lease;
mod plan;
mod queue;
mod scheduler;
mod types;

pub use lease::{LeaseReport, LeaseState, Load, Source};
pub use scheduler::Scheduler;
pub use types::{
    Action, BootId, Candidate, Epoch, InvalidPolicy, MAX_CANDIDATES, Moment, Policy, Rejection, ReplicaIndex, Request,
    TenantIndex, TenantLimits, Ticket,
};
