//! The lease state machine that the enclave enforces: pure, with time passed in.
//!
//! ```text
//! Scrubbing(0) -> Vacant(1) -> Held(tenant, e) -> Draining(tenant, e) -> Scrubbing(e) -> Vacant(e+1)
//! ```
//!
//! A scheduler says when and to whom ([`LeaseMachine::grant`], [`LeaseMachine::drain`]); this machine decides whether. It
//! is driven by [`LeaseMachine::tick`] and by what the engine's owner reports, and answers with [`Action`]s. What runs in
//! the engine runs under a [`Permit`] that became a [`Call`] while its epoch was alive: there is no other way to get one.
//!
//! Guarantees, each with a test that fails without its check:
//! - An epoch has one `tenant_ref`, and at most one full tenant id.
//! - A permit is given only in `Held` and only to the holder; a call begins only in the permit's own epoch, in `Held` or
//!   `Draining`, and not after the epoch's permits were revoked.
//! - `Draining` becomes `Scrubbing` only with no permit out; `Scrubbing` becomes `Vacant` only with a proof and no permit out.
//! - A control message with a stale epoch changes nothing.

mod machine;
mod permit;
mod state;

#[cfg(test)]
mod tests;

pub use machine::{Account, Action, LeaseMachine, Ledger, Limits};
pub use permit::{Call, OtherTenant, Permit};
pub use state::{Epoch, Millis, NotHeld, State, Status};
