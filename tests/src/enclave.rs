//! A real enclave process with its engine.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use cloister_attestation::{
    AppraisalPolicy, Measurement, ModelDigest, Sha256Digest, Workload, danger::simulated_policy,
};
use serde_json::{Value, json};

use crate::{
    batches::{self, Batches},
    child::Child,
    engine::EngineSocket,
    lying::Lying,
    process,
    programs::programs,
    real::RealEngine,
    site::{CLUSTER, MODEL, Site, free_address, simulated_tee},
    wait,
};

/// How an enclave is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    engine: Value,
    model: Option<PathBuf>,
    overrides: Value,
    log: Option<&'static str>,
}

impl Setup {
    /// The simulated engine, with its own arguments. Without padding.
    #[must_use]
    pub fn simulator(arguments: &[&str]) -> Self {
        let arguments = ["--batch-log", batches::FILE]
            .into_iter()
            .chain(arguments.iter().copied());
        Self {
            engine: json!({
                "kind": "simulator",
                "image": programs().simulator,
                "args": arguments.collect::<Vec<_>>(),
            }),
            model: None,
            overrides: json!({"padding": {"recordSize": 0}}),
            log: None,
        }
    }

    /// llama.cpp with the real model.
    #[must_use]
    pub fn real(engine: &RealEngine) -> Self {
        Self {
            engine: json!({
                "kind": "llamacpp",
                "image": engine.wheel,
                // One thread: several wait for each other in a loop, which takes long where other tests run.
                "args": ["--parallel", "4", "--context", "8192", "--threads", "1"],
            }),
            model: Some(engine.model.clone()),
            overrides: json!({"padding": {"recordSize": 0}}),
            log: None,
        }
    }

    /// Keys of the configuration that are other than usual.
    #[must_use]
    pub fn with(mut self, overrides: &Value) -> Self {
        merge(&mut self.overrides, overrides);
        self
    }

    /// What is logged, instead of the default.
    #[must_use]
    pub fn log(mut self, filter: &'static str) -> Self {
        self.log = Some(filter);
        self
    }
}

/// The enclave. Dropping it kills it, and with it its engine.
#[derive(Debug)]
pub struct Enclave {
    child: Child,
    site: Site,
    config: PathBuf,
    log: Option<&'static str>,
    address: String,
    policy: AppraisalPolicy,
    model: ModelDigest,
    runtime_dir: PathBuf,
    batches: Batches,
}

impl Enclave {
    /// Starts an enclave, and waits until its engine is proven empty.
    pub async fn start(site: &Site, setup: &Setup) -> Self {
        let enclave = Self::spawn(site, setup);
        enclave.lying().await.until_vacant().await;
        enclave
    }

    /// Starts an enclave, and waits for nothing.
    #[must_use]
    pub fn spawn(site: &Site, setup: &Setup) -> Self {
        let address = free_address();
        let name = format!("enclave-{}", address.port());
        let runtime_dir = site.join(&name);
        let mut config = json!({
            "listen": address,
            "tls": site.tls("enclave"),
            "clusterId": CLUSTER,
            "model": {"name": MODEL, "path": setup.model.clone().unwrap_or_else(|| site.join("model"))},
            "engine": setup.engine,
            "tee": {"kind": "simulated", "dir": simulated_tee()},
            "runtimeDir": runtime_dir,
        });
        // As far as this machine and this user allow: the refusal of weaker engines has tests of its own.
        merge(
            &mut config,
            &json!({"engine": {"danger": {"weakConfinement": !engines_are_confined()}}}),
        );
        merge(&mut config, &setup.overrides);
        let config = site.write(&format!("{name}.yaml"), &config);
        let (policy, model) = measure(&config);
        let batches = Batches::follow(&runtime_dir);
        Self {
            child: child(site, &config, setup.log),
            site: site.clone(),
            config,
            log: setup.log,
            address: format!("https://{address}"),
            policy,
            model,
            runtime_dir,
            batches,
        }
    }

    /// `https://host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A policy that trusts this enclave and nothing else.
    #[must_use]
    pub fn policy(&self) -> &AppraisalPolicy {
        &self.policy
    }

    /// Digest of its model.
    #[must_use]
    pub fn model(&self) -> ModelDigest {
        self.model
    }

    /// What its engines ran.
    #[must_use]
    pub fn batches(&self) -> &Batches {
        &self.batches
    }

    /// The process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The back door to its engine.
    #[must_use]
    pub fn engine(&self) -> EngineSocket {
        EngineSocket::new(self.runtime_dir.join("engine/engine.sock"))
    }

    /// The processes of its engine; the last one is the engine itself.
    #[must_use]
    pub fn engine_processes(&self) -> Vec<u32> {
        process::descendants(self.child.pid())
    }

    /// The engine's process, once there is one that answers.
    pub async fn engine_pid(&self) -> u32 {
        wait::until("an engine", || async {
            self.engine().metrics().await?;
            self.engine_processes().last().copied()
        })
        .await
    }

    /// The folder of its socket and of what its engine may write.
    #[must_use]
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    /// The site.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// A lying scheduler that is connected to it.
    pub async fn lying(&self) -> Lying {
        Lying::connect(&self.site, &self.address).await
    }

    /// Starts it again after its end, in the same place with the same configuration.
    pub fn start_again(&mut self) {
        assert!(self.child.ended().is_some(), "it still runs");
        self.child = child(&self.site, &self.config, self.log);
    }
}

fn child(site: &Site, config: &Path, log: Option<&str>) -> Child {
    let config = config.to_str().expect("a plain path");
    let mut arguments = vec!["--config", config];
    if let Some(filter) = log {
        arguments.extend(["--log-filter", filter]);
    }
    let name = Path::new(config).with_extension("log");
    Child::start(&programs().enclave, &arguments, site.path().join(name))
}

/// Whether engines that are started from here are fully confined.
fn engines_are_confined() -> bool {
    static CONFINED: OnceLock<bool> = OnceLock::new();
    *CONFINED.get_or_init(|| {
        let output = Command::new(&programs().enclave).arg("confinement").output();
        output
            .expect("the enclave's program starts")
            .stdout
            .starts_with(b"full")
    })
}

/// What the enclave's own program says that it will attest to.
fn measure(config: &Path) -> (AppraisalPolicy, ModelDigest) {
    let output = Command::new(&programs().enclave)
        .args(["measure", "--config"])
        .arg(config)
        .output()
        .expect("the enclave's program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let measured: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let field = |name: &str| measured[name].as_str().expect("a digest").to_owned();
    let model: ModelDigest = field("modelDigest").parse().expect("a digest");
    let root: Sha256Digest = field("simulatedRoot").parse().expect("a digest");
    let measurement: Measurement = field("measurement").parse().expect("a digest");
    let workload = hex::decode(field("workload")).expect("hex");
    let policy = simulated_policy(root, measurement, &Workload::from_cbor(&workload).expect("a workload"));
    (policy, model)
}

/// Puts `overrides` over `value`, key by key.
fn merge(value: &mut Value, overrides: &Value) {
    match (value, overrides) {
        (Value::Object(value), Value::Object(overrides)) => {
            for (key, over) in overrides {
                merge(value.entry(key.clone()).or_insert(Value::Null), over);
            }
        }
        (value, over) => *value = over.clone(),
    }
}
