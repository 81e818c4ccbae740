//! What the enclave asks of an engine.

use async_trait::async_trait;
use tokio::sync::watch;

use crate::call::{EngineCall, EngineResponse};
use crate::dialect::Dialect;
use crate::error::{EngineError, ScrubFailure, StartError};
use crate::proof::{ScrubContext, ScrubProof};

/// One engine, owned by the enclave.
///
/// # Guarantees
/// - Between [`start`](Engine::start) and the end of the process, at most one process answers behind this value.
/// - A [`ScrubProof`] is made only when the engine was seen to be empty after every call of the epoch had ended.
/// - Dropping an [`EngineResponse`], or the future of [`call`](Engine::call), closes the call's connection, which ends
///   the generation in the engine.
///
/// # Expected flow
/// `restart` (a new enclave never inherits an engine), then for each epoch any number of `call`s, then `scrub`; when that
/// fails, `restart`; when that fails too, the replica stays closed.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Starts the engine and waits until it is ready. Replaces what a former enclave process left running.
    ///
    /// # Errors
    /// When it cannot be spawned, does not become ready in time, or is configured to keep state that cannot be cleared.
    async fn start(&self) -> Result<(), StartError>;

    /// Stops the engine: TERM, then KILL of all its processes, and waits for their end. Idempotent.
    async fn stop(&self);

    /// Stops the engine, removes everything that it could write, and starts a new one. Needs no cooperation of the old one.
    ///
    /// # Errors
    /// When the ledger is open, or the new engine does not start or is not seen empty.
    async fn restart(&self, context: &ScrubContext) -> Result<ScrubProof, ScrubFailure>;

    /// Empties the engine of everything of the epoch that ends, by the configured isolation: by reset, or by restart.
    ///
    /// # Errors
    /// When any part of the proof is missing. The engine must then be restarted, and not be leased before.
    async fn scrub(&self, context: &ScrubContext) -> Result<ScrubProof, ScrubFailure>;

    /// Sends one request and waits for the head of the answer.
    ///
    /// # Errors
    /// When the engine is not running, cannot be reached, or does not answer in time. Names no content.
    async fn call(&self, call: EngineCall) -> Result<EngineResponse, EngineError>;

    /// Reads the engine's own load.
    ///
    /// # Errors
    /// When the engine does not answer, or answers without the metrics that its dialect promises.
    async fn load(&self) -> Result<EngineLoad, EngineError>;

    /// The process as it is, and a notification of each change. An unplanned exit is [`EngineStatus::Exited`].
    fn status(&self) -> watch::Receiver<EngineStatus>;

    /// What the engine speaks; none before it was ready for the first time.
    fn dialect(&self) -> Option<Dialect>;

    /// What the engine can do; none before it was ready for the first time.
    fn capabilities(&self) -> Option<Capabilities>;

    /// Calls that have begun and not ended, as this crate counts them.
    fn live_calls(&self) -> u64;

    /// Whether a ready engine runs now.
    fn is_alive(&self) -> bool {
        matches!(*self.status().borrow(), EngineStatus::Ready { .. })
    }
}

/// Where the engine's process stands. Generations count starts from 1 and tell one process from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineStatus {
    /// Never started, or stopped on purpose.
    Stopped,
    /// Spawned and not ready yet.
    Starting {
        /// Which start this is.
        generation: u64,
    },
    /// Answers calls.
    Ready {
        /// Which start this is.
        generation: u64,
    },
    /// Ended without having been asked to.
    Exited {
        /// Which start this was.
        generation: u64,
    },
}

/// The engine's own counters, summed over every engine label. Exact, so never to be published as they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EngineLoad {
    /// Requests in the batch.
    pub running: u64,
    /// Requests that wait in the engine.
    pub waiting: u64,
    /// Share of the KV cache held by running requests, 0 to 1; none when the engine does not report it.
    pub kv_usage: Option<f64>,
}

impl EngineLoad {
    /// Whether nothing runs, waits or holds KV.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting == 0 && self.kv_usage.is_none_or(|usage| usage == 0.0)
    }
}

/// What the engine can do, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Takes image parts.
    pub vision: bool,
    /// Serves embeddings.
    pub embeddings: bool,
    /// Most requests in one batch; none when the engine does not say.
    pub parallel: Option<u32>,
}
