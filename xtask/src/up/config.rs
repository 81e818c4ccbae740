//! The configuration files of a deployment. All are written anew at each start; keys and identities are not.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use serde_json::{Value, json};

use super::{ports::Ports, state::State};
use crate::{
    error::{Context, Result, bail},
    process,
};

/// Name under which the model is served.
pub(super) const MODEL_NAME: &str = "smollm2-135m";
/// Credentials and tenant references are for this cluster only.
pub(super) const CLUSTER_ID: &str = "local";

/// The text SIMULATED and zeros, 32 bytes.
const SIMULATED_HOST_DATA: &str = "53494d554c415445440000000000000000000000000000000000000000000000";

/// Longest time that one tenant's requests are admitted while another waits.
const QUANTUM_MILLIS: u64 = 4_000;
/// Time for a request to arrive whole; below the quantum, so that a slow upload cannot outlive its lease.
const UPLOAD_TIMEOUT_MILLIS: u64 = 2_000;
/// How long an unused lease is kept while another tenant waits.
const SWITCH_COST_MILLIS: u64 = 200;
/// How long a running answer may go on after its tenant's time is over: no answer of the small model takes that long.
const DRAIN_CAP_MILLIS: u64 = 60_000;
/// User ids of the engines, one per enclave; of use only to root. Debian leaves this range to nobody.
const FIRST_ENGINE_UID: u16 = 65_100;
/// Where the enclave looks for the engine's program, whatever the caller's `PATH` is.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program that answers requests in the enclave.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    kind: &'static str,
    /// Without it, the engine's own default.
    program: Option<String>,
    arguments: Vec<String>,
    /// What is measured as the engine's image.
    image: PathBuf,
    model: PathBuf,
    /// Whether it can be kept from the enclave's memory.
    confined: bool,
}

/// What `cloister-enclave measure` says of an enclave's configuration, each in hexadecimal digits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Measurement {
    /// Launch measurement of the enclave's program.
    measurement: String,
    /// Digest of the model's files.
    pub(super) model_digest: String,
    engine_image: String,
    /// Digest of everything that decides how a prompt is computed.
    workload_digest: String,
    /// Digest of the root certificate of the simulated trusted execution environment.
    simulated_root: String,
}

/// A tenant as the configurations of scheduler and proxy name it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TenantFiles {
    pub(super) name: String,
    /// Hexadecimal digits.
    pub(super) tenant_ref: String,
    /// SHA-256 of the bearer token, in hexadecimal digits.
    pub(super) token_sha256: String,
    /// File of the bearer token.
    pub(super) token: PathBuf,
    /// Folder with `credential` and `member.key`.
    pub(super) member: PathBuf,
}

/// Where the throw-away certificates are: `ca.pem`, and `<name>.pem` with `<name>.key`.
fn tls(pki: &Path, name: &str) -> Value {
    json!({
        "ca": pki.join("ca.pem"),
        "certificate": pki.join(format!("{name}.pem")),
        "key": pki.join(format!("{name}.key")),
    })
}

/// Configuration of the enclave of this `number` that listens on `port`, with its own `runtime` folder.
pub(super) fn enclave(number: u16, port: u16, state: &State, runtime: &Path, engine: &Engine, padding: bool) -> Value {
    json!({
        "listen": format!("127.0.0.1:{port}"),
        "tls": tls(&state.join("pki"), "enclave"),
        "clusterId": CLUSTER_ID,
        "model": { "name": MODEL_NAME, "path": engine.model },
        "engine": {
            "kind": engine.kind,
            "program": engine.program,
            "args": engine.arguments,
            "image": engine.image,
            "uid": FIRST_ENGINE_UID.saturating_add(number),
            "danger": { "weakConfinement": !engine.confined },
        },
        "tee": { "kind": "simulated", "dir": state.join("tee") },
        "lease": { "drainCapMillis": DRAIN_CAP_MILLIS, "uploadTimeoutMillis": UPLOAD_TIMEOUT_MILLIS },
        // Without a key the enclave pads as it does by default.
        "padding": if padding { json!({}) } else { json!({ "recordSize": 0 }) },
        "runtimeDir": runtime,
    })
}

/// Configuration of the scheduler.
pub(super) fn scheduler(ports: &Ports, state: &State, tenants: &[TenantFiles]) -> Value {
    json!({
        "listen": format!("127.0.0.1:{}", ports.scheduler),
        "tls": tls(&state.join("pki"), "scheduler"),
        "clusterId": CLUSTER_ID,
        "enclaves": ports.enclaves.iter().map(|port| format!("https://127.0.0.1:{port}")).collect::<Vec<_>>(),
        "tenants": tenants.iter().map(|tenant| json!({ "tenantRef": tenant.tenant_ref })).collect::<Vec<_>>(),
        "credentials": tenants
            .iter()
            .map(|tenant| json!({ "tokenSha256": tenant.token_sha256, "tenantRefs": [tenant.tenant_ref] }))
            .collect::<Vec<_>>(),
        "lease": {
            "quantumMillis": QUANTUM_MILLIS,
            "switchCostMillis": SWITCH_COST_MILLIS,
            "drainCapMillis": DRAIN_CAP_MILLIS,
        },
    })
}

/// Configuration of a tenant's proxy that listens on `port`.
pub(super) fn proxy(port: u16, ports: &Ports, state: &State, tenant: &TenantFiles, measured: &Measurement) -> Value {
    json!({
        "listen": format!("127.0.0.1:{port}"),
        "endpoint": format!("https://127.0.0.1:{}", ports.scheduler),
        "ca": state.join("pki/ca.pem"),
        "clusterId": CLUSTER_ID,
        "credential": tenant.member.join("credential"),
        "memberKey": tenant.member.join("member.key"),
        "outerToken": tenant.token,
        "policy": state.join("policy.yaml"),
        "models": { MODEL_NAME: measured.model_digest },
    })
}

/// Which enclaves the tenants trust: this program with this engine and model, on a SIMULATED environment.
pub(super) fn policy(measured: &Measurement, engine: &Engine) -> Value {
    json!({
        "tees": ["simulated"],
        // What the simulated environment says of its processor, firmware and initial data.
        "allowedGenerations": ["genoa"],
        "minTcb": { "genoa": { "bootloader": 10, "tee": 0, "snp": 25, "microcode": 84 } },
        "hostData": [SIMULATED_HOST_DATA],
        "measurements": [measured.measurement],
        "workloads": {
            "engineImages": [measured.engine_image],
            "models": { MODEL_NAME: measured.model_digest },
            "switchIsolation": "reset",
            // Any other argument, variable or program makes another workload.
            "digests": [measured.workload_digest],
        },
        "danger": { "simulatedTee": measured.simulated_root, "weakConfinement": !engine.confined },
    })
}

/// `value` as YAML, for [`State::write`].
///
/// # Errors
///
/// A value that YAML cannot express; none of the above.
pub(super) fn yaml(value: &Value) -> Result<String> {
    serde_norway::to_string(value).context("a configuration")
}

// === impl Engine ===

impl Engine {
    /// llama.cpp's server from the unpacked `wheel`, with the model file `model`.
    ///
    /// # Errors
    ///
    /// The Python interpreter is not found.
    pub(super) fn llama_cpp(wheel: PathBuf, model: PathBuf, replicas: u16, confined: bool) -> Result<Self> {
        Ok(Self {
            kind: "llamacpp",
            program: interpreter()?,
            arguments: llama_cpp_arguments(cores(), replicas),
            image: wheel,
            model,
            confined,
        })
    }

    /// The simulator `program`; `model` is any file, which stands for the model that it has not got.
    pub(super) fn simulator(program: PathBuf, model: PathBuf, confined: bool) -> Self {
        Self {
            kind: "simulator",
            program: None,
            arguments: Vec::new(),
            image: program,
            model,
            confined,
        }
    }
}

/// Four sequences with 2,048 tokens of context each. The threads of all replicas leave one core to the rest: they wait for
/// each other by spinning, and a thread that has no core of its own holds up all the others.
fn llama_cpp_arguments(cores: usize, replicas: u16) -> Vec<String> {
    let threads = (cores.saturating_sub(1) / usize::from(replicas.max(1)))
        .max(1)
        .to_string();
    ["--parallel", "4", "--context", "8192", "--threads", &threads]
        .map(str::to_owned)
        .into()
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The Python interpreter for the engine: the system's own, which every user can run, or else the caller's.
fn interpreter() -> Result<Option<String>> {
    let mut system = Command::new("python3");
    system
        .args(["-c", "import sys; sys.exit(sys.version_info < (3, 10))"])
        .env("PATH", SYSTEM_PATH);
    if process::succeeds(&mut system) {
        return Ok(None);
    }
    let own = process::output(Command::new("python3").args(["-c", "import sys; print(sys.executable)"]))?;
    Ok(Some(own.trim_end().to_owned()))
}

// === impl Measurement ===

impl Measurement {
    /// Reads the output of `cloister-enclave measure`.
    ///
    /// # Errors
    ///
    /// It is not JSON or lacks a field.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("the output of `cloister-enclave measure`")?;
        let field = |name: &str| match value.get(name).and_then(Value::as_str) {
            Some(text) => Ok(text.to_owned()),
            None => bail!("the output of `cloister-enclave measure` has no text {name}"),
        };
        Ok(Self {
            measurement: field("measurement")?,
            model_digest: field("modelDigest")?,
            engine_image: field("engineImage")?,
            workload_digest: field("workloadDigest")?,
            simulated_root: field("simulatedRoot")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_share_the_cores() {
        let threads = |cores, replicas| llama_cpp_arguments(cores, replicas).pop().unwrap();
        assert_eq!(
            (threads(9, 1), threads(9, 3), threads(2, 4)),
            ("8".into(), "2".into(), "1".into())
        );
    }

    #[test]
    fn a_measurement_has_all_its_parts() {
        let whole =
            r#"{"measurement":"01","workloadDigest":"02","modelDigest":"03","engineImage":"04","simulatedRoot":"05"}"#;
        let measured = Measurement::parse(whole).unwrap();
        assert_eq!(
            (measured.measurement.as_str(), measured.model_digest.as_str()),
            ("01", "03")
        );
        let error = Measurement::parse(r#"{"measurement":"01"}"#).unwrap_err().to_string();
        assert!(error.contains("modelDigest"), "{error}");
        let engine = |confined| Engine::simulator("engine".into(), "model".into(), confined);
        let text = yaml(&policy(&measured, &engine(true))).unwrap();
        assert!(text.contains("digests:\n  - '02'"), "{text}");
        assert!(text.contains("weakConfinement: false"), "{text}");
        assert!(
            yaml(&policy(&measured, &engine(false)))
                .unwrap()
                .contains("weakConfinement: true")
        );
        assert!(
            text.contains("simulatedTee: '05'"),
            "digits are text, not a number: {text}"
        );
    }
}
