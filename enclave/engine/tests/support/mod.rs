//! An owned engine in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use cloister_attestation::BootId;
use cloister_enclave_engine::{
    Engine, EngineCall, EngineError, EngineResponse, Ledger, OwnedEngine, OwnedEngineConfig, ScrubContext, Timeouts,
};
use futures::StreamExt;
use serde_json::{Value, json};
use zeroize::Zeroizing;

pub(crate) const CHAT: &str = "/v1/chat/completions";

pub(crate) struct Rig {
    pub(crate) engine: OwnedEngine,
    directory: tempfile::TempDir,
}

impl Rig {
    /// An engine that is not started.
    pub(crate) fn new(configure: impl FnOnce(PathBuf) -> OwnedEngineConfig) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let engine = OwnedEngine::new(configure(directory.path().join("run"))).expect("a runtime directory");
        Self { engine, directory }
    }

    /// A simulated engine that is not started.
    pub(crate) fn simulator(arguments: &[&str]) -> Self {
        Self::new(|runtime_dir| simulator_config(runtime_dir, arguments))
    }

    /// A simulated engine that runs.
    pub(crate) async fn running(arguments: &[&str]) -> Self {
        let rig = Self::simulator(arguments);
        rig.engine.start().await.expect("started");
        rig
    }

    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// Sets faults of the simulator.
    pub(crate) async fn faults(&self, faults: &Value) {
        self.post("/simulator/faults", faults).await;
    }

    pub(crate) async fn call(&self, path: &'static str, body: &Value) -> Result<EngineResponse, EngineError> {
        self.engine
            .call(EngineCall {
                path,
                body: Zeroizing::new(body.to_string().into_bytes()),
            })
            .await
    }

    /// A whole answer as JSON.
    pub(crate) async fn post(&self, path: &'static str, body: &Value) -> Value {
        let mut response = self.call(path, body).await.expect("an answer");
        let mut bytes = Vec::new();
        while let Some(piece) = response.body.next().await {
            bytes.extend_from_slice(&piece.expect("a piece"));
        }
        assert!(
            response.status.is_success(),
            "{} {}",
            response.status,
            String::from_utf8_lossy(&bytes)
        );
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// Waits until the engine itself says that nothing runs.
    pub(crate) async fn until_idle(&self) {
        while !self.engine.load().await.expect("a load").is_idle() {
            tokio::task::yield_now().await;
        }
    }

    /// Sends a request and asks how many of its prompt tokens were cached.
    pub(crate) async fn cached(&self, salt: &str) -> u64 {
        let answer = self.post(CHAT, &ask(salt, 2)).await;
        answer
            .pointer("/usage/prompt_tokens_details/cached_tokens")
            .and_then(Value::as_u64)
            .expect("cached tokens")
    }
}

pub(crate) fn simulator_config(runtime_dir: PathBuf, arguments: &[&str]) -> OwnedEngineConfig {
    let defaults = ["--profile", "instant"];
    let arguments = defaults.iter().chain(arguments).map(ToString::to_string).collect();
    let mut config = OwnedEngineConfig::simulator(simulator(), runtime_dir, arguments);
    config.timeouts = timeouts();
    // For those who are not root.
    config.weak_confinement = true;
    config
}

/// Limits that a test never waits for, except those that it is about.
pub(crate) fn timeouts() -> Timeouts {
    Timeouts {
        start: Duration::from_secs(60),
        ..Timeouts::default()
    }
}

pub(crate) fn ask(salt: &str, tokens: u32) -> Value {
    let prompt: String = (0..60).map(|word| format!(" w{word}")).collect();
    json!({
        "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "ignore_eos": true, "cache_salt": salt,
    })
}

pub(crate) fn context(nonce: u8) -> ScrubContext {
    ScrubContext {
        boot_id: BootId::from_bytes([7; 16]),
        epoch: 1,
        nonce: [nonce; 32],
        cache_salt: Some(Zeroizing::new("tenant".to_owned())),
        ledger: Ledger { begun: 3, ended: 3 },
    }
}

/// The simulator's program, built if it is not there: cargo builds no binaries of other packages for a test.
pub(crate) fn simulator() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--package",
                "cloister-engine-simulator",
                "--bin",
                "cloister-engine-simulator",
            ])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the simulator does not build");
        let test = std::env::current_exe().expect("this test's path");
        let profile = test.parent().and_then(Path::parent).expect("target/<profile>");
        let path = profile.join("cloister-engine-simulator");
        assert!(path.exists(), "{} is missing", path.display());
        path
    })
    .clone()
}
