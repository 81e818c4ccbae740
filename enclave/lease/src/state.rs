//! Names of states and epochs, as they are shown outside.

use cloister_attestation::BootId;
use cloister_session::TenantRef;

/// Milliseconds of the enclave's own monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// Later by `other`.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// From `earlier` to here; 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

/// One turn of one tenant on the replica: a counter within a boot of the enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// The enclave process.
    pub boot_id: BootId,
    /// Counter, from 0.
    pub number: u64,
}

/// The state by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The engine is being emptied, or started.
    Scrubbing,
    /// Proven empty; nobody's.
    Vacant,
    /// One tenant's requests are admitted.
    Held,
    /// Nothing is admitted any more; what runs may end.
    Draining,
    /// The engine cannot be proven empty: never leased again.
    Failed,
}

/// What a scheduler sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The state.
    pub state: State,
    /// The epoch that it belongs to.
    pub epoch: Epoch,
    /// The holder, while there is one.
    pub holder: Option<TenantRef>,
}

/// The lease is not this tenant's, or the replica is full. To be answered as retryable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tenant does not hold the lease")]
pub struct NotHeld;
