//! One module a command.

pub(crate) mod appraise;
pub(crate) mod collateral;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod proxy;
pub(crate) mod receipt;
pub(crate) mod tenant;

use crate::output::Failed;
use tokio::runtime::{Builder, Runtime};

/// The runtime of commands that talk to a scheduler.
fn runtime() -> Result<Runtime, Failed> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::running(format!("the asynchronous runtime cannot start: {error}")))
}
