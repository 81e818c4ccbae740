//! The simulator as a whole, and its sockets.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use crate::batch::{self, BatchHandle};
use crate::cache::PrefixCache;
use crate::config::SimulatorConfig;
use crate::faults::Faults;
use crate::log::{BatchEntry, BatchLog};
use crate::metrics::Load;

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A simulator that cannot be made or reached.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The batch log cannot be written.
    #[error("cannot create the batch log: {0}")]
    BatchLog(#[source] io::Error),
    /// The socket cannot be bound.
    #[error("cannot listen: {0}")]
    Listen(#[source] io::Error),
}

/// What the routes and the batch share.
pub(crate) struct Shared {
    pub config: SimulatorConfig,
    pub load: Load,
    pub log: BatchLog,
    pub asleep: AtomicBool,
    /// Told when the `exit` fault strikes.
    pub exit: Notify,
    cache: Mutex<PrefixCache>,
    faults: Mutex<Faults>,
}

impl Shared {
    pub(crate) fn faults(&self) -> Faults {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    pub(crate) fn cache(&self) -> MutexGuard<'_, PrefixCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keep_prefix(&self, salt: Option<&str>, tokens: &[u64]) {
        let salt = salt.filter(|_| !self.faults().ignore_salt);
        self.cache().insert(salt, tokens);
    }
}

/// What a route sees.
#[derive(Clone)]
pub(crate) struct App {
    pub shared: Arc<Shared>,
    pub batch: BatchHandle,
}

/// A simulated engine. Clones are the same engine. It must be made inside a tokio runtime.
#[derive(Clone)]
pub struct Simulator {
    app: App,
    // Ends the batch with the last clone.
    _batch: Arc<AbortOnDrop>,
}

impl Simulator {
    /// Starts the batch; nothing listens yet.
    ///
    /// # Errors
    /// When the batch log cannot be created.
    pub fn new(config: SimulatorConfig) -> Result<Self, SimulatorError> {
        let log = BatchLog::create(config.batch_log.as_deref()).map_err(SimulatorError::BatchLog)?;
        let shared = Arc::new(Shared {
            cache: Mutex::new(PrefixCache::new(config.block_size, config.kv_blocks)),
            faults: Mutex::new(config.faults.clone()),
            load: Load::default(),
            asleep: AtomicBool::new(false),
            exit: Notify::new(),
            log,
            config,
        });
        let (handle, run) = batch::new(Arc::clone(&shared));
        let task = tokio::spawn(run);
        let app = App { shared, batch: handle };
        Ok(Self {
            app,
            _batch: Arc::new(AbortOnDrop(task.abort_handle())),
        })
    }

    /// Listens on a unix socket that does not exist yet.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub fn listen_unix(&self, path: &Path) -> Result<Listening, SimulatorError> {
        let listener = UnixListener::bind(path).map_err(SimulatorError::Listen)?;
        let router = crate::api::router(self.app.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => serve(&router, stream, &mut connections),
                    // Out of descriptors, say: the next one may do.
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            }
        });
        Ok(Listening {
            address: None,
            _task: AbortOnDrop(task.abort_handle()),
            _simulator: self.clone(),
        })
    }

    /// Listens on a TCP address.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn listen_tcp(&self, address: SocketAddr) -> Result<Listening, SimulatorError> {
        let listener = TcpListener::bind(address).await.map_err(SimulatorError::Listen)?;
        let address = listener.local_addr().map_err(SimulatorError::Listen)?;
        let router = crate::api::router(self.app.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        // Tokens are small and must not wait for each other; without it they are only later.
                        let _ = stream.set_nodelay(true);
                        serve(&router, stream, &mut connections);
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            }
        });
        Ok(Listening {
            address: Some(address),
            _task: AbortOnDrop(task.abort_handle()),
            _simulator: self.clone(),
        })
    }

    /// Every composition that the batch has had, oldest first, the last 65,536 of them.
    #[must_use]
    pub fn batches(&self) -> Vec<BatchEntry> {
        self.app.shared.log.entries()
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: Faults) {
        self.app.shared.set_faults(faults);
    }

    /// Sequences in the batch.
    #[must_use]
    pub fn running(&self) -> u64 {
        self.app.shared.load.running()
    }

    /// Sequences that wait for the batch.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.app.shared.load.waiting()
    }

    /// Waits until a fault asks for the end of the process.
    pub async fn exit_requested(&self) {
        self.app.shared.exit.notified().await;
    }

    /// Whether it was put to sleep.
    #[must_use]
    pub fn is_sleeping(&self) -> bool {
        self.app.shared.asleep.load(Ordering::Acquire)
    }
}

/// An open socket of a simulator. Dropping it closes the socket and every connection made through it.
pub struct Listening {
    address: Option<SocketAddr>,
    _task: AbortOnDrop,
    _simulator: Simulator,
}

impl Listening {
    /// The TCP address, if it is one.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn serve<S>(router: &axum::Router, stream: S, connections: &mut JoinSet<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    while connections.try_join_next().is_some() {}
    let service = TowerToHyperService::new(router.clone());
    connections.spawn(async move {
        // A client that goes away, or a fault that breaks the connection, is no error of the simulator.
        let _ = auto::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    });
}
