//! Routes sealed requests of tenants to enclaves, and can read none of them.
//!
//! A client's request waits here, most of its body still with the client, until an enclave is leased to the request's tenant. Then it is
//! forwarded as it is, and the sealed answer is passed back as it is. This crate has no key and no parser for what is sealed: of M1 it
//! reads the outer part, of a key configuration the names in it.
//!
//! # What is trusted
//! Nothing here has to be, for a tenant's secrets: the enclave checks every decision again. What is decided here is who waits how long.
//!
//! # Shape
//! [`config`] is read once. The index of enclaves and the key configurations that were handed out say where a request may go; the pure
//! scheduler of `cloister-scheduler-core` decides when; two tasks per enclave carry its status in and commands out.
//!
//! # What is not written down
//! Tenants, request ids and bodies appear in no log, metric or error.

mod auth;
mod clock;
pub mod config;
mod control;
mod dispatcher;
mod enclaves;
mod forward;
mod keys;
mod limiter;
mod metrics;
mod refusal;
mod run;
mod server;
mod upload;

pub use refusal::{CODE_HEADER, Code, RETRYABLE_HEADER, Refusal};
pub use run::{BindError, Server, run};
pub use upload::REPLAY_LIMIT;
