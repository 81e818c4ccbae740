//! Configuration of the enclave: one YAML file, read once. What decides how a prompt is computed ends up in the workload
//! digest, so that a client can refuse it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use cloister_attestation::SwitchIsolation;
use cloister_session::key_config::PaddingProfile;
use cloister_transport::TlsFiles;
use serde::Deserialize;

/// The file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Address of the data and control plane.
    pub listen: SocketAddr,
    /// Certificates of the mutual TLS with schedulers.
    pub tls: TlsFiles,
    /// Cluster for which credentials have to be made.
    pub cluster_id: String,
    /// The model.
    pub model: ModelConfig,
    /// The engine.
    pub engine: EngineConfig,
    /// The trusted execution environment.
    pub tee: TeeConfig,
    /// Its GPUs; none without.
    #[serde(default)]
    pub gpus: Option<GpuConfig>,
    /// Bounds of leases.
    #[serde(default)]
    pub lease: LeaseConfig,
    /// How the engine is cleaned between tenants.
    #[serde(default = "default_isolation")]
    pub switch_isolation: SwitchIsolation,
    /// How answers are padded.
    #[serde(default)]
    pub padding: PaddingConfig,
    /// Folder of the engine's socket and of what it may write; each enclave has its own.
    pub runtime_dir: PathBuf,
    /// Whether clients see how many tokens of their prompt the engine had cached.
    #[serde(default)]
    pub expose_cached_tokens: bool,
}

/// The model.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelConfig {
    /// Name under which it is served.
    pub name: String,
    /// Its file, or the folder of its files.
    pub path: PathBuf,
}

/// The engine.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EngineConfig {
    /// What is started.
    pub kind: EngineKind,
    /// llama.cpp: the Python interpreter (default `python3`); vLLM: its command (default `vllm`). Hashed with the image.
    #[serde(default)]
    pub program: Option<String>,
    /// Arguments beyond those that the enclave gives (socket, model, what keeps state from one epoch to the next off). For
    /// llama.cpp `--parallel`, `--context`, `--threads`; for the others those that the engine crate lists as harmless.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment beyond that which the enclave gives: variables that the engine crate lists as harmless.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// File or folder that is hashed as the engine's image: the unpacked xllamacpp wheel, the simulator's program, vLLM's
    /// environment.
    pub image: PathBuf,
    /// User id that the engine runs as, when the enclave is root.
    #[serde(default = "default_uid")]
    pub uid: u32,
    /// Longest wait in milliseconds for the engine's first byte of an answer.
    #[serde(default = "default_first_byte")]
    pub first_byte_timeout_millis: u64,
    /// Longest silence in milliseconds within an answer.
    #[serde(default = "default_idle")]
    pub idle_timeout_millis: u64,
    /// Weakenings, which clients see.
    #[serde(default)]
    pub danger: EngineDanger,
}

/// Weakenings: a client's policy has to accept each one by name.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EngineDanger {
    /// Run an engine that is not kept from the enclave's memory where the enclave has not got the rights to do so (root, and
    /// the right to make namespaces). Whoever takes over the engine reads every tenant's keys then.
    pub weak_confinement: bool,
}

/// Kinds of engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// llama.cpp's server.
    LlamaCpp,
    /// vLLM.
    Vllm,
    /// The engine simulator of this project: it runs no model.
    Simulator,
}

impl EngineKind {
    /// Name in the workload.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LlamaCpp => "llamacpp",
            Self::Vllm => "vllm",
            Self::Simulator => "simulator",
        }
    }
}

/// The trusted execution environment: `kind: snp`, `tdx` or `simulated`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum TeeConfig {
    /// AMD SEV-SNP.
    Snp(RealTee),
    /// Intel TDX.
    Tdx(RealTee),
    /// SIMULATED: protects nothing. Only in builds with the feature `simulated`.
    Simulated(SimulatedConfig),
}

/// Where a real TEE has its evidence.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RealTee {
    /// Folder that `cloister collateral fetch` filled: certificates of AMD's chips (for hosts that hand out none), collateral
    /// of Intel's platforms.
    #[serde(default)]
    pub collateral: Option<PathBuf>,
    /// Folder of configfs-tsm, where it is not `/sys/kernel/config/tsm/report`.
    #[serde(default)]
    pub report_root: Option<PathBuf>,
    /// The TEE's device, where it is not `/dev/sev-guest` or `/dev/tdx_guest`.
    #[serde(default)]
    pub device: Option<PathBuf>,
}

/// GPUs that are part of the enclave: their evidence is shown with the CPU's, and verified here before any plaintext.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GpuConfig {
    /// NVIDIA's library; the loader looks for it if it is only a name.
    #[serde(default = "default_library")]
    pub library: PathBuf,
}

/// The simulated TEE.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SimulatedConfig {
    /// Folder that `cloister-enclave simulated-tee init` made.
    pub dir: PathBuf,
}

/// Bounds of leases, in milliseconds.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LeaseConfig {
    /// D: what still runs this long after admission ended is preempted.
    pub drain_cap_millis: u64,
    /// Longest lease, whatever a scheduler says.
    pub max_hold_millis: u64,
    /// Longest lease without a request and without word from a scheduler.
    pub idle_hold_millis: u64,
    /// Time in which a request has to be whole.
    pub upload_timeout_millis: u64,
    /// Most requests at once.
    pub max_in_flight: usize,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            drain_cap_millis: 60_000,
            max_hold_millis: 3_600_000,
            idle_hold_millis: 60_000,
            upload_timeout_millis: 10_000,
            max_in_flight: 256,
        }
    }
}

/// How answers are padded.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PaddingConfig {
    /// Bytes of a record, 256 to 16384; 0: padding is off.
    pub record_size: u16,
    /// Milliseconds between two records of a stream.
    pub tick_millis: u16,
    /// The number of records is a multiple of this.
    pub count_bucket: u16,
}

impl Default for PaddingConfig {
    fn default() -> Self {
        let PaddingProfile {
            record_size,
            tick_millis,
            count_bucket,
        } = PaddingProfile::DEFAULT;
        Self {
            record_size,
            tick_millis,
            count_bucket,
        }
    }
}

impl PaddingConfig {
    /// As keys say it.
    #[must_use]
    pub const fn profile(self) -> PaddingProfile {
        let Self {
            record_size,
            tick_millis,
            count_bucket,
        } = self;
        PaddingProfile {
            record_size,
            tick_millis,
            count_bucket,
        }
    }
}

fn default_library() -> PathBuf {
    cloister_enclave_attester::gpu::LIBRARY.into()
}

const fn default_isolation() -> SwitchIsolation {
    SwitchIsolation::Reset
}

const fn default_uid() -> u32 {
    65534
}

const fn default_first_byte() -> u64 {
    300_000
}

const fn default_idle() -> u64 {
    60_000
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not the documented YAML.
    #[error("the configuration {path} is not right: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_norway::Error,
    },
    /// A value outside its bounds.
    #[error("the configuration {path} is not right: {what}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Which value, and what it may be.
        what: &'static str,
    },
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let config: Self = serde_norway::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source,
        })?;
        match config.check() {
            Ok(()) => Ok(config),
            Err(what) => Err(ConfigError::Value {
                path: path.to_owned(),
                what,
            }),
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        let name = |name: &str| (1..=cloister_session::limits::MAX_NAME).contains(&name.len());
        let lease = &self.lease;
        if !name(&self.cluster_id) || !name(&self.model.name) {
            return Err("clusterId and model.name are 1 to 128 bytes long");
        }
        if !self.padding.profile().is_valid() {
            return Err("padding: recordSize is 0 or 256..16384, tickMillis 1..1000, countBucket 1..1024");
        }
        if lease.upload_timeout_millis == 0 || lease.max_hold_millis == 0 || lease.idle_hold_millis == 0 {
            return Err("lease: uploadTimeoutMillis, maxHoldMillis and idleHoldMillis are at least 1");
        }
        if lease.max_in_flight == 0 {
            return Err("lease: maxInFlight is at least 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
listen: 127.0.0.1:9001
tls: {ca: ca.pem, certificate: e.pem, key: e.key}
clusterId: local
model: {name: m, path: m.gguf}
engine: {kind: llamacpp, image: wheel}
tee: {kind: simulated, dir: tee}
runtimeDir: run
";

    fn check(text: &str) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("enclave.yaml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path).map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_and_refusals() {
        assert_eq!(check(GOOD), Ok(()));
        let with = |line: &str| check(&format!("{GOOD}{line}\n"));
        assert!(with("surprise: 1").is_err());
        assert!(with("padding: {recordSize: 255}").unwrap_err().contains("recordSize"));
        assert!(with("padding: {tickMillis: 0}").is_err());
        assert!(with("lease: {uploadTimeoutMillis: 0}").is_err());
        assert!(with("lease: {maxInFlight: 0}").is_err());
        let tee = |tee: &str| check(&GOOD.replace("{kind: simulated, dir: tee}", tee));
        assert_eq!(tee("{kind: snp}"), Ok(()));
        assert_eq!(tee("{kind: tdx, collateral: c, reportRoot: r, device: d}"), Ok(()));
        assert!(tee("{kind: sgx}").unwrap_err().contains("sgx"));
        assert!(tee("{kind: simulated}").is_err(), "without a folder");
        assert!(tee("{kind: snp, dir: tee}").is_err(), "a field of another kind");
        assert!(tee("{dir: tee}").is_err(), "no kind");
        assert_eq!(with("gpus: {}"), Ok(()));
        assert!(with("gpus: {librari: x}").is_err());
        assert!(check(&GOOD.replace("clusterId: local", "clusterId: ''")).is_err());
        assert!(
            Config::read(Path::new("/nonexistent"))
                .unwrap_err()
                .to_string()
                .contains("/nonexistent")
        );
    }
}
