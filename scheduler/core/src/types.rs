use std::time::Duration;

/// Most candidates of one request; what is beyond is not looked at. The wire format allows as many.
pub const MAX_CANDIDATES: usize = 4;

/// A point in time: milliseconds since an origin of the caller's choice, never decreasing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

/// Position of a tenant in the list given to [`Scheduler::new`](crate::Scheduler::new). Tenants have no other name in this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantIndex(pub usize);

/// Position of a replica, below the count given to [`Scheduler::new`](crate::Scheduler::new).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaIndex(pub usize);

/// Handle of a submitted request. Later requests have greater ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// Random name of one enclave process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub [u8; 16]);

/// One term of a replica: the boot and a counter within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// The enclave process.
    pub boot: BootId,
    /// Counts up by one per scrub.
    pub number: u64,
}

/// A replica that can open a request, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The replica.
    pub replica: ReplicaIndex,
    /// The boot whose key the request is sealed to: another boot cannot open it.
    pub boot: BootId,
    /// When that key is erased; not dispatched at or after it.
    pub usable_until: Moment,
}

/// A request that waits for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whose it is.
    pub tenant: TenantIndex,
    /// In order of preference; at most [`MAX_CANDIDATES`] are looked at.
    pub candidates: Vec<Candidate>,
    /// Rejected when not dispatched before.
    pub deadline: Moment,
}

/// Limits of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantLimits {
    /// The tenant's quantum is [`Policy::quantum`] times this, at least 1.
    pub weight: u32,
    /// Longest queue; a request beyond is rejected.
    pub max_queued: usize,
}

/// What the driver has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the replica to give itself to the tenant, if it is still vacant in this epoch.
    /// To be answered by [`Scheduler::replied`](crate::Scheduler::replied) or [`Scheduler::command_failed`](crate::Scheduler::command_failed).
    Grant {
        /// The replica.
        replica: ReplicaIndex,
        /// The next holder.
        tenant: TenantIndex,
        /// The epoch that was reported.
        expect: Epoch,
    },
    /// Ask the replica to admit no more, if it is still held in this epoch. To be answered like a grant.
    Drain {
        /// The replica.
        replica: ReplicaIndex,
        /// The epoch that was reported.
        expect: Epoch,
    },
    /// Forward the request. Ends with [`Scheduler::finish`](crate::Scheduler::finish), [`Scheduler::retry`](crate::Scheduler::retry)
    /// or [`Scheduler::refused`](crate::Scheduler::refused).
    Dispatch {
        /// The request.
        ticket: Ticket,
        /// Where to.
        replica: ReplicaIndex,
    },
    /// Answer the request with an error; its ticket is gone.
    Reject {
        /// The request.
        ticket: Ticket,
        /// Why.
        reason: Rejection,
    },
}

/// Why a request is not dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// The tenant's queue is full.
    QueueFull,
    /// The deadline passed.
    Expired,
    /// Every key that the request is sealed to is erased, or about to be.
    WindowEnded,
    /// Every replica that could open the request has restarted, so that its key is gone.
    UnknownKey,
    /// No candidate is left that is reachable, healthy and untried.
    CandidateUnavailable,
}

/// The knobs of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Least time of a lease that is not empty before another tenant may end it.
    pub quantum: Duration,
    /// How long an empty lease is kept with another tenant waiting: about what a switch costs.
    pub linger: Duration,
    /// Longest drain before the enclave preempts what still runs; here it only says how soon a draining replica counts as lost.
    pub drain_cap: Duration,
    /// Most requests dispatched to one lease at a time. More than the engine batches only makes its queue longer; the rest waits
    /// here, where another replica may take it.
    pub max_in_flight: usize,
    /// How long a replica may be unreachable before requests that have no other are rejected.
    pub unreachable_grace: Duration,
    /// Pause after a command that failed or was not applied.
    pub command_pause: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            quantum: Duration::from_secs(2),
            linger: Duration::from_millis(200),
            drain_cap: Duration::from_secs(30),
            max_in_flight: 128,
            unreachable_grace: Duration::from_secs(3),
            command_pause: Duration::from_millis(100),
        }
    }
}

/// A policy under which nothing could ever run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// Nothing would be dispatched.
    #[error("max_in_flight is 0: allow at least one request per lease")]
    NothingInFlight,
    /// A failing replica would be asked again at once, for ever.
    #[error("command_pause is 0: a failing command would be repeated without a pause")]
    NoPause,
}

// === impl Moment ===

impl Moment {
    /// The end of time.
    pub const NEVER: Self = Self(u64::MAX);

    /// This moment and `duration`, in whole milliseconds; stops at [`Moment::NEVER`].
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// The time from `earlier` to this; zero when it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

// === impl Policy ===

impl Policy {
    /// Checks that the policy lets anything run.
    ///
    /// # Errors
    /// Names the value to change.
    pub fn validate(&self) -> Result<(), InvalidPolicy> {
        if self.max_in_flight == 0 {
            return Err(InvalidPolicy::NothingInFlight);
        }
        if self.command_pause.as_millis() == 0 {
            return Err(InvalidPolicy::NoPause);
        }
        Ok(())
    }
}
