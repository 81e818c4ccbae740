//! Permits: the right to have one request opened, and then to have one call in the engine.

/// The right of one request to be opened in one epoch. Becomes a [`Call`] or is given back with
/// [`LeaseMachine::end`](crate::LeaseMachine::end); it can be neither copied nor made outside this crate.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is dropped keeps its epoch from ending: give it back"]
pub struct Permit {
    pub(crate) id: u64,
    pub(crate) epoch: u64,
    /// The request's full tenant id was held against the epoch's.
    pub(crate) identified: bool,
}

/// The right of one request to be in the engine: a permit that was consumed while its epoch was alive.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a call that is dropped keeps its epoch from ending: end it"]
pub struct Call {
    pub(crate) id: u64,
    pub(crate) epoch: u64,
}

impl Permit {
    /// Counter of the epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Call {
    /// Counter of the epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// The epoch already has another full tenant id under the same reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another tenant has the epoch")]
pub struct OtherTenant;
