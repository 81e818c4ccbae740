//! What can go wrong with an engine. No error holds anything that a prompt or an answer holds.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::arguments::ForbiddenArgument;

/// A call to the engine that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No engine runs, or it is not ready.
    #[error("the engine is not running")]
    NotRunning,
    /// The socket does not answer.
    #[error("cannot connect to the engine's socket: {0}")]
    Connect(#[source] io::Error),
    /// What answers on the socket does not run as the engine's user.
    #[error("what answers on the engine's socket runs as uid {found}, not as {expected}")]
    Impostor {
        /// User id of the peer.
        found: u32,
        /// User id of the engine.
        expected: u32,
    },
    /// A wait was over before the engine did its part.
    #[error("the engine gave no {what} within {after:?}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// The limit.
        after: Duration,
    },
    /// The connection broke before the answer was complete.
    #[error("the engine's connection broke while {during}")]
    Broken {
        /// What was going on.
        during: &'static str,
    },
    /// An answer of the engine's control routes that does not have its form.
    #[error("the engine's answer to {route} is not understood: {reason}")]
    Malformed {
        /// The route.
        route: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A control route that answered with an error.
    #[error("the engine answered {status} to {route}")]
    Status {
        /// The route.
        route: &'static str,
        /// HTTP status.
        status: u16,
    },
}

/// Engine or model are not what was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("engine or model changed since they were measured; start the enclave again")]
pub struct Changed;

/// An engine that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The arguments would make the engine keep or share state that no scrub clears.
    #[error(transparent)]
    Forbidden(#[from] ForbiddenArgument),
    /// The engine could read what the enclave knows.
    #[error(
        "the engine cannot be fully confined; missing: {missing}, or accept it with `engine.danger.weakConfinement`, which clients see"
    )]
    NotConfined {
        /// What is missing, and how to get it.
        missing: &'static str,
    },
    /// It would be another engine or model than the one that was measured.
    #[error(transparent)]
    Changed(#[from] Changed),
    /// Another enclave process uses the same runtime directory.
    #[error("runtime directory {0} is in use by another process; give each enclave its own")]
    RuntimeDirectoryInUse(PathBuf),
    /// The runtime directory cannot be made safe.
    #[error("cannot prepare {path}: {source}")]
    RuntimeDirectory {
        /// The path that was worked on.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The engine of a former enclave process does not go away.
    #[error("engine process {pid} of a former enclave does not end; stop it by hand")]
    Leftover {
        /// Its process id.
        pid: i32,
    },
    /// A program is not installed.
    #[error("{program} is not installed; {advice}")]
    MissingProgram {
        /// Its name.
        program: String,
        /// What to do.
        advice: &'static str,
    },
    /// A file or directory of the configuration is not there.
    #[error("cannot read {path}: {source}; correct the engine's configuration")]
    MissingPath {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The process cannot be made.
    #[error("cannot start the engine's process: {0}")]
    Spawn(#[source] io::Error),
    /// The process ended before it was ready.
    #[error("the engine ended before it was ready; check its program, model and arguments")]
    Ended,
    /// It did not become ready in time.
    #[error("the engine was not ready within {0:?}; raise the start timeout if the model is large")]
    NotReady(Duration),
    /// It is neither a llama.cpp nor a vLLM server.
    #[error("the engine answers neither as llama.cpp nor as vLLM")]
    UnknownDialect,
    /// It holds state that no scrub clears.
    #[error("the engine keeps state that cannot be cleared: {0}")]
    UnclearableState(&'static str),
    /// A route that the start needs failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Why there is no proof. The engine is to be restarted.
#[derive(Debug, thiserror::Error)]
pub enum ScrubFailure {
    /// (a) Calls of the epoch have not ended, as the enclave counts them.
    #[error("{0} calls of the epoch have not ended")]
    LedgerOpen(u64),
    /// (a) Calls have not ended, as this crate counts them.
    #[error("{0} connections to the engine are open")]
    CallsLive(u64),
    /// (a) A call was begun while the scrub was under way.
    #[error("a call was begun during the scrub")]
    Disturbed,
    /// The engine goes on after every call has ended.
    #[error("the engine did not become idle within {0:?}")]
    NotIdle(Duration),
    /// (b) The reset was not confirmed.
    #[error("the reset was not confirmed: {0}")]
    ResetUnconfirmed(&'static str),
    /// (c) A scrape after the reset shows work or KV in use.
    #[error("the engine is not empty after the reset: running {running}, waiting {waiting}, KV in use: {kv_in_use}")]
    NotEmpty {
        /// Requests running.
        running: u64,
        /// Requests waiting.
        waiting: u64,
        /// Whether KV is in use.
        kv_in_use: bool,
    },
    /// (d) The planted prefix is not seen even before the reset, so its absence would prove nothing.
    #[error("the probe is blind: the engine does not report cached tokens for a prefix that it has just seen")]
    ProbeBlind,
    /// (d) The planted prefix survived the reset.
    #[error("{0} tokens of the planted prefix survived the reset")]
    ProbeHit(u64),
    /// Something was written where the engine may only erase.
    #[error("the engine's slot directory is not empty")]
    SlotDirectoryNotEmpty,
    /// The process changed in between.
    #[error("the engine was replaced during the scrub")]
    Replaced,
    /// A route of the scrub failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The new engine did not start.
    #[error("the engine could not be restarted: {0}")]
    Start(#[from] StartError),
}
