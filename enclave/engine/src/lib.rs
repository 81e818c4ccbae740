//! The engine that the enclave owns: its process, the calls to it, the dialects, and the proof that it was scrubbed.
//!
//! An engine is a child process that answers on a unix socket and nowhere else. [`Engine`] is what the rest of the enclave
//! sees; [`OwnedEngine`] is the one implementation. The enclave leases a replica only on a [`ScrubProof`], which only
//! this crate can make, and only from what it observed.

mod arguments;
mod call;
mod config;
mod connection;
mod dialect;
mod engine;
mod error;
mod image;
mod metrics;
mod owned;
mod process;
mod program;
mod proof;
mod scrub;

pub use arguments::{ForbiddenArgument, OperatorOptions, check_environment};
pub use call::{EngineBody, EngineCall, EngineResponse};
pub use config::{EngineUser, OwnedEngineConfig, Precondition, Timeouts};
pub use dialect::{Clearing, Dialect, State, states};
pub use engine::{Capabilities, Engine, EngineLoad, EngineStatus};
pub use error::{Changed, EngineError, ScrubFailure, StartError};
pub use image::{LLAMACPP_LAUNCHER, engine_image_digest};
pub use owned::OwnedEngine;
pub use process::Confinement;
pub use proof::{Ledger, ScrubContext, ScrubMethod, ScrubProof};
