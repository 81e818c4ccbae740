//! The engine that the enclave owns: its process, the calls to it, the dialects, and the proof that it was scrubbed.
//!
//! An engine is a child process that answers on a unix socket and nowhere else. [`Engine`] is what the rest of the enclave
//! sees. The enclave leases a replica only on a [`ScrubProof`], which only this crate can make, and only from what it
//! observed.

mod arguments;
mod call;
mod dialect;
mod engine;
mod error;
mod proof;

pub use arguments::{ForbiddenArgument, check_arguments, check_environment};
pub use call::{EngineBody, EngineCall, EngineResponse};
pub use dialect::{Clearing, Dialect, State, states};
pub use engine::{Capabilities, Engine, EngineLoad, EngineStatus};
pub use error::{EngineError, ScrubFailure, StartError};
pub use proof::{Ledger, ScrubContext, ScrubMethod, ScrubProof};
