//! A simulated inference engine: vLLM's API and metrics over a latency model, without a model.
//!
//! It exists for load, and for tests that must see each batch: no real engine writes down which requests shared a
//! step. It says that it is simulated wherever it names itself, and must never be taken for an engine that serves users.
//!
//! # Expected flow
//! [`Simulator::new`] with a [`SimulatorConfig`], then [`Simulator::listen_unix`] or [`Simulator::listen_tcp`]; dropping the
//! returned [`Listening`] closes the socket and every connection.

mod api;
mod batch;
mod cache;
mod config;
mod faults;
mod log;
mod metrics;
mod schema;
mod server;
mod text;

pub use config::{Profile, SimulatorConfig, UnknownProfile, VERSION};
pub use faults::{Faults, ResetFault};
pub use log::{BatchEntry, BatchMember};
pub use server::{Listening, Simulator, SimulatorError};
