//! Puts the parts together and runs them.

use std::{future::Future, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use cloister_scheduler_core::{InvalidPolicy, TenantLimits};
use cloister_transport::{
    ClientAuth, ClientError, ClientLimits, ServeLimits, ServerTls, Stopped, TlsError, client_config, serve,
    server_config,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use crate::{
    auth::{Credentials, Tenants},
    clock::Clock,
    config::{Config, Flags},
    control::Control,
    dispatcher::Dispatcher,
    enclaves::Enclaves,
    keys::Keys,
    limiter::Limiter,
    metrics::Metrics,
    server::{Service, router},
};

/// Requests under way may finish for so long after the signal to stop; with what comes after, it ends within 5 s.
const DRAIN_DEADLINE: Duration = Duration::from_secs(4);
/// Time for the last telemetry.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Most client connections.
const MAX_CONNECTIONS: usize = 4096;

/// Exit code of a failure to start or serve.
const EXIT_FAILED: u8 = 1;
/// Exit code of a wrong command line or configuration.
const EXIT_CONFIG: u8 = 2;

/// A scheduler that has its address and its parts, and serves nobody yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: ServerTls,
    limits: ServeLimits,
    app: axum::Router,
    tasks: JoinSet<()>,
}

/// Why a scheduler cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Certificates or keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An enclave's address.
    #[error("enclaves: {0}")]
    Enclave(#[from] ClientError),
    /// The lease policy.
    #[error("lease: {0}")]
    Policy(#[from] InvalidPolicy),
    /// The address to listen on.
    #[error("cannot listen on {address}: {source}; change `listen`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

// === impl Server ===

impl Server {
    /// Binds the address and starts to reach for the enclaves.
    ///
    /// # Errors
    /// See [`BindError`].
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        let tls = server_config(&config.tls, ClientAuth::None)?;
        let identity = (config.tls.certificate.as_path(), config.tls.key.as_path());
        let client_tls = client_config(&config.tls.ca, Some(identity))?;
        let enclaves = Enclaves::new(&config.enclaves, &client_tls, &client_limits(&config))?;
        let (service, tasks) = assemble(&config, enclaves)?;

        let listen = |source| BindError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        tracing::info!(%address, cluster = config.cluster_id, enclaves = config.enclaves.len(), tenants = config.tenants.len(), "listening");
        Ok(Self {
            listener,
            address,
            tls,
            limits: serve_limits(&config),
            app: router(Arc::new(service)),
            tasks,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` resolves and what is under way has ended, 4 s at most. Dropping the future stops at once.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let stopped = serve(self.listener, self.tls, self.app, self.limits, shutdown).await;
        if let Stopped::Cut { connections } = stopped {
            tracing::warn!(connections, "requests were cut off");
        }
        // Aborts the tasks of the enclaves.
        drop(self.tasks);
    }
}

fn assemble(config: &Config, enclaves: Enclaves) -> Result<(Service, JoinSet<()>), BindError> {
    let clock = Clock::start();
    let metrics = Arc::new(Metrics::new());
    let tenants = Arc::new(Tenants::new(&config.tenants));
    let limits = config.tenants.iter().map(|tenant| TenantLimits {
        weight: tenant.weight,
        max_queued: tenant.max_queued,
    });
    let (dispatcher, commands) = Dispatcher::new(clock, Arc::clone(&metrics), config.policy, limits, enclaves.len())?;

    let mut tasks = JoinSet::new();
    for (enclave, commands) in enclaves.iter().zip(commands) {
        let control = Control {
            enclave: enclave.clone(),
            dispatcher: Arc::clone(&dispatcher),
            tenants: Arc::clone(&tenants),
            metrics: Arc::clone(&metrics),
        };
        tasks.spawn(control.clone().watch());
        tasks.spawn(control.obey(commands));
    }
    let timekeeper = Arc::clone(&dispatcher);
    tasks.spawn(async move { timekeeper.keep_time().await });

    let now = clock.now();
    let limiter = |per_minute| Limiter::new(per_minute, tenants.len(), now);
    let service = Service {
        clock,
        credentials: Credentials::new(&config.credentials, &tenants),
        keys: Keys::new(clock, enclaves.clone(), Arc::clone(&dispatcher)),
        key_limiter: limiter(config.limits.keys_per_minute),
        evidence_limiter: limiter(config.limits.evidence_per_minute),
        timeouts: config.timeouts,
        tenants,
        enclaves,
        dispatcher,
        metrics,
    };
    Ok((service, tasks))
}

fn serve_limits(config: &Config) -> ServeLimits {
    let limits = &config.limits;
    ServeLimits {
        max_connections: MAX_CONNECTIONS,
        max_concurrent_streams: limits.streams_per_connection,
        initial_stream_window: limits.stream_window,
        // Enough for all streams, so that requests that wait unread do not hold up others of the connection.
        connection_window: limits.streams_per_connection.saturating_mul(limits.stream_window),
        drain_deadline: DRAIN_DEADLINE,
        ..ServeLimits::default()
    }
}

fn client_limits(config: &Config) -> ClientLimits {
    let default = ClientLimits::default();
    let streams = u32::try_from(config.policy.max_in_flight).unwrap_or(u32::MAX);
    // Twice the lease's requests: those of the lease before may still be delivered. At most what HTTP/2 allows.
    let window = streams.saturating_mul(2).saturating_mul(default.initial_stream_window);
    ClientLimits {
        connection_window: window.clamp(default.connection_window, i32::MAX as u32),
        ..default
    }
}

/// The program: serves under `flags` until SIGTERM or SIGINT.
pub async fn run(flags: Flags) -> ExitCode {
    let telemetry = match cloister_telemetry::init("cloister-scheduler", &flags.telemetry()) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&error, EXIT_FAILED),
    };
    let config = match Config::load(flags) {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    // Before anything says that the program runs: a signal that comes then must not be missed.
    let stop = match stop_signal() {
        Ok(stop) => stop,
        Err(error) => return fail(&error, EXIT_FAILED),
    };
    let server = match Server::bind(config).await {
        Ok(server) => server,
        Err(error) => return fail(&error, EXIT_FAILED),
    };
    server.serve(stop).await;
    if let Ok(Err(error)) = tokio::time::timeout(FLUSH_TIMEOUT, telemetry.shutdown()).await {
        tracing::warn!(%error, "telemetry was lost");
    }
    ExitCode::SUCCESS
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("cloister-scheduler: {error}");
    ExitCode::from(code)
}

fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}
