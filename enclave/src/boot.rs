//! From configuration to a running enclave.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, routing::post};
use cloister_attestation::{BootId, EngineConfinement, Measurement, Workload, WorkloadDigest, WorkloadError};
use cloister_enclave_attester::Gpus;
use cloister_enclave_engine::{
    Changed, Engine, EngineUser, LLAMACPP_LAUNCHER, OwnedEngine, OwnedEngineConfig, Precondition, StartError,
    check_environment, engine_image_digest,
};
use cloister_enclave_lease::{Limits, Millis};
use cloister_enclave_openai::FilterOptions;
use cloister_proto::{enclave_control_server::EnclaveControlServer, enclave_keys_server::EnclaveKeysServer};
use cloister_transport::{ClientAuth, ServeLimits, TlsError, serve, server_config};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::Clock,
    config::{Config, EngineKind},
    control::Control,
    data,
    enclave::{AssembleError, Enclave, Parts},
    leases::{Leases, random},
    machine::{self, MachineError, UnfitGpus},
    measure::{self, MeasureError},
};

/// Path of the data plane.
pub const REQUESTS_PATH: &str = "/cloister/v1/requests";
/// Scrubs that may fail in a row, each after a restart, before the replica is given up.
const MAX_SCRUB_FAILURES: u32 = 3;
/// Longest wait for requests under way when the enclave is told to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// An enclave that does not come up.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Program, model or engine cannot be hashed.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// The engine's image cannot be hashed.
    #[error("cannot hash the engine's image {path}: {source}")]
    Image {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The workload is outside its bounds.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// No TEE, or no GPUs where there should be some.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Own GPUs that may not be given plaintext.
    #[error(transparent)]
    Gpus(#[from] UnfitGpus),
    /// The engine cannot be owned.
    #[error(transparent)]
    Engine(#[from] StartError),
    /// No identity.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Engine or model are not what was measured any more.
    #[error("engine or model changed while the enclave ran: start it again, and let clients appraise what it is now")]
    Changed,
    /// No socket.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// What the enclave would be fixed to, and the digests that a policy has to name.
pub struct Measured {
    /// The workload.
    pub workload: Workload,
    /// Launch measurement.
    pub measurement: Measurement,
}

/// Hashes everything, starts nothing.
///
/// # Errors
/// [`BootError`].
pub fn measure(config: &Config) -> Result<Measured, BootError> {
    measure_with(config, &engine_config(config)?)
}

/// The engine's program is `engine`'s own: a name is looked up once, and never again.
fn measure_with(config: &Config, engine: &OwnedEngineConfig) -> Result<Measured, BootError> {
    engine
        .operator_options
        .check(&engine.operator_arguments)
        .map_err(StartError::from)?;
    check_environment(&engine.operator_environment).map_err(StartError::from)?;
    let image = &config.engine.image;
    let launcher = (config.engine.kind == EngineKind::LlamaCpp).then_some(LLAMACPP_LAUNCHER);
    let program = engine.program_file()?;
    let engine_image = engine_image_digest(image, launcher, program.as_deref()).map_err(|source| BootError::Image {
        path: image.clone(),
        source,
    })?;
    let workload = Workload {
        enclave_version: env!("CARGO_PKG_VERSION").to_owned(),
        engine_kind: config.engine.kind.as_str().to_owned(),
        engine_image,
        engine_args: engine.measured_arguments(),
        engine_env: engine.measured_environment(),
        model: measure::model(&config.model.path)?.digest(),
        served_model_name: config.model.name.clone(),
        scrub_method: engine.isolation.as_str().to_owned(),
        switch_isolation: config.switch_isolation,
        // What is allowed, not what this machine happens to give: it is the same wherever it is measured.
        confinement: if engine.weak_confinement {
            EngineConfinement::Weak
        } else {
            EngineConfinement::Full
        },
    };
    // What cannot be read back is outside its bounds, and no client would take it.
    Workload::from_cbor(&workload.to_cbor())?;
    Ok(Measured {
        workload,
        measurement: Measurement::from_bytes(measure::program()?),
    })
}

fn engine_config(config: &Config) -> Result<OwnedEngineConfig, StartError> {
    let (engine, runtime) = (&config.engine, config.runtime_dir.clone());
    let (args, model) = (engine.args.clone(), config.model.path.clone());
    let mut owned = match engine.kind {
        EngineKind::LlamaCpp => OwnedEngineConfig::llamacpp(engine.image.clone(), model, runtime, args),
        EngineKind::Simulator => OwnedEngineConfig::simulator(engine.image.clone(), runtime, args),
        EngineKind::Vllm => OwnedEngineConfig::vllm("vllm".to_owned(), model, runtime, args),
    };
    if let Some(program) = engine.program.as_ref().filter(|_| engine.kind != EngineKind::Simulator) {
        owned.program.clone_from(program);
    }
    // The name in requests; the operator cannot give another.
    let name = match engine.kind {
        EngineKind::LlamaCpp => None,
        EngineKind::Simulator => Some("--model"),
        EngineKind::Vllm => Some("--served-model-name"),
    };
    if let Some(option) = name {
        // In one word, so that no name can be taken for an option.
        owned.arguments.push(format!("{option}={}", config.model.name));
    }
    owned.operator_environment.clone_from(&engine.env);
    owned.user = EngineUser {
        uid: engine.uid,
        gid: engine.uid,
    };
    owned.isolation = config.switch_isolation;
    owned.weak_confinement = engine.danger.weak_confinement;
    owned.timeouts.first_byte = Duration::from_millis(engine.first_byte_timeout_millis);
    owned.timeouts.idle = Duration::from_millis(engine.idle_timeout_millis);
    if let Some(file) = owned.program_file()? {
        owned.program = file.to_str().ok_or_else(|| program_name(&file))?.to_owned();
    }
    Ok(owned)
}

fn program_name(file: &Path) -> StartError {
    StartError::MissingPath {
        path: file.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, "its path is not UTF-8"),
    }
}

/// An enclave with its engine, not yet serving.
pub struct Booted {
    enclave: Arc<Enclave>,
    engine: Arc<dyn Engine>,
    unfit: Unfit,
}

/// Cancelled when a start of the engine found something else than what was measured, or GPUs that may not be used.
#[derive(Clone, Default)]
struct Unfit {
    found: CancellationToken,
    gpus: Arc<Mutex<Option<UnfitGpus>>>,
}

/// Measures, makes the identity, prepares the engine. The workload is fixed from here on.
///
/// # Errors
/// [`BootError`].
pub fn boot(config: &Config) -> Result<Booted, BootError> {
    let mut engine = engine_config(config)?;
    let Measured { workload, measurement } = measure_with(config, &engine)?;
    let machine = machine::open(config, *measurement.as_bytes())?;
    let clock = Clock::start();
    if let Some(gpus) = machine.gpus() {
        machine::check_gpus(gpus, clock.now(), machine::genuine)?;
    }
    let unfit = Unfit::default();
    let unchanged = unchanged(config, &engine, workload.digest());
    engine.precondition = precondition(unchanged, machine.gpus().cloned(), clock, unfit.clone());
    let engine: Arc<dyn Engine> = Arc::new(OwnedEngine::new(engine)?);
    Ok(Booted {
        enclave: assemble(config, workload, Box::new(machine), Arc::clone(&engine), clock)?,
        engine,
        unfit,
    })
}

fn assemble(
    config: &Config,
    workload: Workload,
    attester: Box<dyn cloister_enclave_attester::Attester>,
    engine: Arc<dyn Engine>,
    clock: Clock,
) -> Result<Arc<Enclave>, AssembleError> {
    let boot_id = BootId::from_bytes(random());
    let lease = config.lease;
    let limits = Limits {
        drain_cap: Millis(lease.drain_cap_millis),
        max_hold: Millis(lease.max_hold_millis),
        idle_hold: Millis(lease.idle_hold_millis),
        max_in_flight: lease.max_in_flight,
        max_scrub_failures: MAX_SCRUB_FAILURES,
    };
    Enclave::assemble(Parts {
        clock,
        workload,
        attester,
        leases: Leases::new(boot_id, limits, clock),
        boot_id,
        engine,
        padding: config.padding.profile(),
        filter: FilterOptions {
            expose_cached_tokens: config.expose_cached_tokens,
        },
        cluster_id: config.cluster_id.clone(),
        upload_timeout: Duration::from_millis(lease.upload_timeout_millis),
    })
}

impl Booted {
    /// The enclave.
    #[must_use]
    pub fn enclave(&self) -> &Arc<Enclave> {
        &self.enclave
    }

    /// Serves data and control plane and drives lease, engine and key windows, until `stop` is cancelled; then stops the
    /// engine. Also ends, with [`BootError::Changed`], when engine or model are found changed,
    /// and with [`BootError::Gpus`] when GPUs are found unfit, at a start of the engine.
    ///
    /// # Errors
    /// [`BootError`].
    pub async fn run(self, config: &Config, stop: CancellationToken) -> Result<(), BootError> {
        let tls = server_config(&config.tls, ClientAuth::Required)?;
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|source| BootError::Listen {
                address: config.listen,
                source,
            })?;
        let tasks = TaskTracker::new();
        let inner = CancellationToken::new();
        let _stop_tasks = inner.clone().drop_guard();
        let leases = Arc::clone(&self.enclave.leases);
        tasks.spawn(leases.drive(Arc::clone(&self.engine), inner.clone()));
        let (noticed, stopping) = (self.unfit.found.clone(), stop.clone());
        tasks.spawn(inner.clone().run_until_cancelled_owned(async move {
            noticed.cancelled().await;
            stopping.cancel();
        }));
        tasks.spawn(Arc::clone(&self.enclave).erase_windows(inner.clone()));
        tasks.close();
        let (app, until) = (router(&self.enclave), stop.clone().cancelled_owned());
        serve(listener, tls, app, limits(config), until).await;
        inner.cancel();
        tasks.wait().await;
        self.engine.stop().await;
        self.unfit.into_result()
    }
}

/// A scheduler multiplexes every request of the lease on one connection, beside its control streams.
fn limits(config: &Config) -> ServeLimits {
    let streams = u32::try_from(config.lease.max_in_flight)
        .unwrap_or(u32::MAX)
        .saturating_mul(2)
        .clamp(128, 4096);
    let defaults = ServeLimits::default();
    ServeLimits {
        drain_deadline: STOP_DEADLINE,
        max_concurrent_streams: streams,
        connection_window: streams.saturating_mul(defaults.initial_stream_window).min(256 << 20),
        ..defaults
    }
}

impl Unfit {
    fn into_result(self) -> Result<(), BootError> {
        if !self.found.is_cancelled() {
            return Ok(());
        }
        let gpus = self.gpus.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(gpus.map_or(BootError::Changed, BootError::Gpus))
    }
}

/// Holds as long as `unchanged` does and every GPU proves itself anew. `unfit` is cancelled when not.
fn precondition(
    unchanged: impl Fn() -> bool + Send + Sync + 'static,
    gpus: Option<Arc<Gpus>>,
    clock: Clock,
    unfit: Unfit,
) -> Precondition {
    Precondition::new(move || {
        let fit = match gpus
            .as_ref()
            .map(|gpus| machine::check_gpus(gpus, clock.now(), machine::genuine))
        {
            Some(Err(error)) => {
                tracing::error!(%error, "stopping");
                *unfit.gpus.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                false
            }
            None | Some(Ok(())) => unchanged(),
        };
        if fit {
            return Ok(());
        }
        unfit.found.cancel();
        Err(Changed)
    })
}

/// Whether engine and model, hashed anew, are what was measured.
fn unchanged(
    config: &Config,
    engine: &OwnedEngineConfig,
    workload: WorkloadDigest,
) -> impl Fn() -> bool + Send + Sync + 'static {
    let (config, engine) = (config.clone(), engine.clone());
    move || {
        let same = match measure_with(&config, &engine) {
            Ok(measured) => measured.workload.digest() == workload,
            Err(error) => {
                tracing::error!(%error, "engine or model cannot be measured again");
                false
            }
        };
        if !same {
            tracing::error!("engine or model changed since they were measured: stopping");
        }
        same
    }
}

/// Data and control plane on one port.
pub fn router(enclave: &Arc<Enclave>) -> Router {
    let control = Control::new(Arc::clone(enclave));
    let mut grpc = tonic::service::Routes::new(EnclaveControlServer::new(control.clone()));
    grpc = grpc.add_service(EnclaveKeysServer::new(control));
    Router::new()
        .route(REQUESTS_PATH, post(data::handle))
        .with_state(Arc::clone(enclave))
        .merge(grpc.into_axum_router())
}
