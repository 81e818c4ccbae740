//! In the TEE: session termination, lease enforcement, and the engine that belongs to it.
//!
//! The walk of a request: [`data`] takes M1 and opens it under a permit of [`leases`]; the allow-list of
//! `cloister-enclave-openai` writes it anew; the answer is sealed while the engine speaks; [`control`] is all that a
//! scheduler can say.

mod answer;
mod clock;
mod load;
mod metrics;
mod outbox;
mod rate;
mod updates;

pub mod boot;
pub mod cli;
pub mod config;
pub mod control;
pub mod data;
pub mod enclave;
pub mod leases;
pub mod machine;
pub mod measure;
pub mod show;
