//! An engine that runs as a child of the enclave.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cloister_attestation::SwitchIsolation;
use http::StatusCode;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::arguments::check_environment;
use crate::call::{EngineCall, EngineResponse};
use crate::config::OwnedEngineConfig;
use crate::connection::Connector;
use crate::dialect::{Dialect, Identity, identify};
use crate::engine::{Capabilities, Engine, EngineLoad, EngineStatus};
use crate::error::{EngineError, ScrubFailure, StartError};
use crate::process::{Confinement, Process, Record, RuntimeDirectory, check_present, command, end_leftover};
use crate::proof::{Observations, ScrubContext, ScrubMethod, ScrubProof};
use crate::scrub::{self, Subject};

/// Between two looks at an engine that is about to become ready.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// An engine as a child process on a unix socket, confined as far as the enclave's own rights reach.
pub struct OwnedEngine {
    /// Held while the engine is started, stopped or scrubbed: one at a time. First, so that it is killed before its
    /// directory is given up.
    child: tokio::sync::Mutex<Child>,
    config: OwnedEngineConfig,
    directory: RuntimeDirectory,
    confinement: Confinement,
    connector: Connector,
    status: watch::Sender<EngineStatus>,
    /// What the engine of the present generation said of itself.
    identity: Mutex<Option<Identity>>,
}

struct Child {
    generation: u64,
    process: Option<Process>,
}

impl OwnedEngine {
    /// Takes the runtime directory for this process. Starts nothing.
    ///
    /// # Errors
    /// When the configuration is refused, or the directory is in use or cannot be made safe.
    pub fn new(config: OwnedEngineConfig) -> Result<Self, StartError> {
        config.operator_options.check(&config.operator_arguments)?;
        check_environment(&config.operator_environment)?;
        let confinement = Confinement::strongest();
        if confinement != Confinement::Full {
            let missing = confinement.missing();
            if !config.weak_confinement {
                return Err(StartError::NotConfined { missing });
            }
            tracing::warn!(missing, "the engine is not fully confined");
        }
        let directory = RuntimeDirectory::open(&config)?;
        let uid = match confinement {
            Confinement::Full | Confinement::User => config.user.uid,
            Confinement::Weak => rustix::process::geteuid().as_raw(),
        };
        Ok(Self {
            connector: Connector::new(directory.socket(), uid, config.timeouts),
            directory,
            confinement,
            status: watch::Sender::new(EngineStatus::Stopped),
            identity: Mutex::default(),
            child: tokio::sync::Mutex::new(Child {
                generation: 0,
                process: None,
            }),
            config,
        })
    }

    /// How far the engine is confined.
    #[must_use]
    pub const fn confinement(&self) -> Confinement {
        self.confinement
    }

    async fn start_child(&self, child: &mut Child) -> Result<(), StartError> {
        check_present(&self.config, self.confinement)?;
        self.end_former().await?;
        self.directory.renew(&self.config, self.confinement)?;
        child.generation = child.generation.saturating_add(1);
        let generation = child.generation;
        *self.identity() = None;
        let command = command(&self.config, &self.directory, self.confinement);
        // Last, so that as little as possible can change between this look and the engine's own.
        self.config.precondition.holds().await?;
        let process = Process::spawn(command).await.map_err(StartError::Spawn)?;
        Record::of([process.pid()]).write(&self.directory.record())?;
        self.status.send_replace(EngineStatus::Starting { generation });
        self.watch_end(&process, generation);
        let process = child.process.insert(process);

        let identity = self.become_ready(process).await?;
        tracing::info!(dialect = ?identity.dialect, version = identity.version, generation, "the engine is ready");
        *self.identity() = Some(identity);
        // Not if it has just ended: that is the news then.
        let starting = EngineStatus::Starting { generation };
        let became = self.status.send_if_modified(|status| {
            let became = *status == starting;
            if became {
                *status = EngineStatus::Ready { generation };
            }
            became
        });
        if became { Ok(()) } else { Err(StartError::Ended) }
    }

    async fn become_ready(&self, process: &Process) -> Result<Identity, StartError> {
        let limit = self.config.timeouts.start;
        let mut ended = process.ended();
        let ready = async {
            let deadline = Instant::now() + limit;
            loop {
                match self.connector.get("/health").await {
                    Ok(answer) if answer.status == StatusCode::OK => break,
                    Err(error @ EngineError::Impostor { .. }) => return Err(error.into()),
                    _ if Instant::now() >= deadline => return Err(StartError::NotReady(limit)),
                    _ => sleep(LOOK_AGAIN).await,
                }
            }
            if self.confinement == Confinement::Full {
                // The namespaces' first process: killing it ends all others, whatever group they have moved to.
                let init = process.find_init().ok_or(StartError::Ended)?;
                Record::of([process.pid(), init]).write(&self.directory.record())?;
            }
            identify(&self.connector, self.config.vision).await
        };
        tokio::select! {
            ready = ready => ready,
            _ = ended.wait_for(|ended| *ended) => Err(StartError::Ended),
        }
    }

    /// Says so when the process ends without having been asked to.
    fn watch_end(&self, process: &Process, generation: u64) {
        let mut ended = process.ended();
        let status = self.status.clone();
        tokio::spawn(async move {
            // The sender is gone only with the process.
            let _ = ended.wait_for(|ended| *ended).await;
            status.send_if_modified(|status| {
                let running = [
                    EngineStatus::Starting { generation },
                    EngineStatus::Ready { generation },
                ];
                let unplanned = running.contains(status);
                if unplanned {
                    tracing::error!(generation, "the engine ended");
                    *status = EngineStatus::Exited { generation };
                }
                unplanned
            });
        });
    }

    async fn stop_child(&self, child: &mut Child) {
        self.status.send_if_modified(|status| {
            let changed = *status != EngineStatus::Stopped;
            *status = EngineStatus::Stopped;
            changed
        });
        *self.identity() = None;
        if let Some(process) = child.process.take() {
            process.stop(self.config.timeouts.stop).await;
        }
        if let Err(error) = self.directory.clear() {
            // The next start tries again, and fails if it cannot.
            tracing::warn!(%error, "what the engine wrote could not be removed");
        }
    }

    async fn end_former(&self) -> Result<(), StartError> {
        let record = self.directory.record();
        let ended = tokio::task::spawn_blocking(move || end_leftover(&record)).await;
        ended.unwrap_or(Err(StartError::Ended))
    }

    /// What the running engine is, and its generation.
    fn running(&self) -> Result<(Identity, u64), EngineError> {
        let EngineStatus::Ready { generation } = *self.status.borrow() else {
            return Err(EngineError::NotRunning);
        };
        let identity = self.identity().clone().ok_or(EngineError::NotRunning)?;
        Ok((identity, generation))
    }

    fn subject<'a>(&'a self, identity: &'a Identity) -> Subject<'a> {
        Subject {
            connector: &self.connector,
            identity,
            slots: self.directory.slots(),
            drain: self.config.timeouts.drain,
        }
    }

    async fn scrub_by_reset(
        &self,
        context: &ScrubContext,
        identity: &Identity,
        generation: u64,
    ) -> Result<ScrubProof, ScrubFailure> {
        let subject = self.subject(identity);
        let begun = self.connector.begun();
        subject.ledger_closed(context).await?;
        let mut seen = Observations::new(context, generation, ScrubMethod::Reset);
        subject.reset(context, &mut seen).await?;
        self.undisturbed(begun)?;
        self.still(generation)?;
        Ok(seen.prove(context, generation, ScrubMethod::Reset, identity.dialect))
    }

    async fn scrub_by_restart(&self, context: &ScrubContext, child: &mut Child) -> Result<ScrubProof, ScrubFailure> {
        scrub::check_ledger(context)?;
        self.stop_child(child).await;
        // Without an engine every connection breaks; one that does not is held by something else.
        if !self.connector.closed(self.config.timeouts.drain).await {
            return Err(ScrubFailure::CallsLive(self.connector.live()));
        }
        let begun = self.connector.begun();
        self.start_child(child).await?;
        let (identity, generation) = self.running()?;
        let mut seen = Observations::new(context, generation, ScrubMethod::Restart);
        seen.text("version", &identity.version);
        self.subject(&identity).observe_empty(&mut seen).await?;
        self.undisturbed(begun)?;
        self.still(generation)?;
        Ok(seen.prove(context, generation, ScrubMethod::Restart, identity.dialect))
    }

    /// Whether no call came in between: it would have run before the lease that it needs.
    fn undisturbed(&self, begun: u64) -> Result<(), ScrubFailure> {
        if self.connector.begun() == begun {
            Ok(())
        } else {
            Err(ScrubFailure::Disturbed)
        }
    }

    /// Whether the engine is still the one that was looked at.
    fn still(&self, generation: u64) -> Result<(), ScrubFailure> {
        match *self.status.borrow() {
            EngineStatus::Ready { generation: now } if now == generation => Ok(()),
            _ => Err(ScrubFailure::Replaced),
        }
    }

    fn identity(&self) -> MutexGuard<'_, Option<Identity>> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Engine for OwnedEngine {
    async fn start(&self) -> Result<(), StartError> {
        let mut child = self.child.lock().await;
        if self.is_alive() {
            return Ok(());
        }
        self.stop_child(&mut child).await;
        let started = self.start_child(&mut child).await;
        if started.is_err() {
            self.stop_child(&mut child).await;
        }
        started
    }

    async fn stop(&self) {
        let mut child = self.child.lock().await;
        self.stop_child(&mut child).await;
    }

    async fn restart(&self, context: &ScrubContext) -> Result<ScrubProof, ScrubFailure> {
        let mut child = self.child.lock().await;
        let proof = self.scrub_by_restart(context, &mut child).await;
        if proof.is_err() {
            self.stop_child(&mut child).await;
        }
        proof
    }

    async fn scrub(&self, context: &ScrubContext) -> Result<ScrubProof, ScrubFailure> {
        let (identity, generation) = self.running()?;
        if self.config.isolation == SwitchIsolation::Reset && identity.can_reset() {
            let _one_at_a_time = self.child.lock().await;
            return self.scrub_by_reset(context, &identity, generation).await;
        }
        self.restart(context).await
    }

    async fn call(&self, call: EngineCall) -> Result<EngineResponse, EngineError> {
        self.running()?;
        self.connector.call(call).await
    }

    async fn load(&self) -> Result<EngineLoad, EngineError> {
        let (identity, _) = self.running()?;
        scrub::load(&self.connector, identity.dialect).await
    }

    fn status(&self) -> watch::Receiver<EngineStatus> {
        self.status.subscribe()
    }

    fn dialect(&self) -> Option<Dialect> {
        self.identity().as_ref().map(|identity| identity.dialect)
    }

    fn capabilities(&self) -> Option<Capabilities> {
        self.identity().as_ref().map(|identity| identity.capabilities)
    }

    fn live_calls(&self) -> u64 {
        self.connector.live()
    }
}
