//! The proof by looking: what is done and observed between two epochs, in order.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::connection::Connector;
use crate::dialect::{self, Dialect, Identity, Planted};
use crate::engine::EngineLoad;
use crate::error::{EngineError, ScrubFailure};
use crate::proof::{Observations, ScrubContext};

/// Between two looks at an engine that is about to become idle.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Everything that a scrub needs to see.
pub(crate) struct Subject<'a> {
    pub connector: &'a Connector,
    pub identity: &'a Identity,
    pub slots: Option<&'a Path>,
    /// For the engine to become idle.
    pub drain: Duration,
}

impl Subject<'_> {
    /// (a): every call has ended, by the enclave's count and by this crate's.
    pub(crate) async fn ledger_closed(&self, context: &ScrubContext) -> Result<(), ScrubFailure> {
        check_ledger(context)?;
        // A dropped answer closes its connection a moment later.
        if !self.connector.closed(self.drain).await {
            return Err(ScrubFailure::CallsLive(self.connector.live()));
        }
        Ok(())
    }

    /// (b) to (d): empties the engine by its dialect's reset and observes that it is empty.
    pub(crate) async fn reset(&self, context: &ScrubContext, seen: &mut Observations) -> Result<(), ScrubFailure> {
        let (connector, identity) = (self.connector, self.identity);
        seen.text("version", &identity.version);
        self.become_idle().await?;
        let planted = Planted::new(context);
        dialect::plant(connector, identity, &planted, seen).await?;
        dialect::reset(connector, identity, seen).await?;
        self.observe_empty(seen).await?;
        dialect::probe(connector, identity, &planted, seen).await?;
        // The probe has left the prefix: out with it, too.
        dialect::reset(connector, identity, seen).await?;
        self.observe_empty(seen).await
    }

    /// (c): two scrapes that show nothing, and a slot directory with nothing in it.
    pub(crate) async fn observe_empty(&self, seen: &mut Observations) -> Result<(), ScrubFailure> {
        for _ in 0..2 {
            let load = dialect::load(self.connector, self.identity.dialect).await?;
            if !load.is_idle() {
                return Err(not_empty(&load));
            }
            seen.number("running", load.running);
            seen.number("waiting", load.waiting);
            seen.number("kv reported", u64::from(load.kv_usage.is_some()));
        }
        match self.slots {
            Some(slots) if !is_empty(slots) => Err(ScrubFailure::SlotDirectoryNotEmpty),
            _ => Ok(()),
        }
    }

    /// Waits for the engine to notice that its calls are gone.
    async fn become_idle(&self) -> Result<(), ScrubFailure> {
        let deadline = Instant::now() + self.drain;
        while !dialect::load(self.connector, self.identity.dialect).await?.is_idle() {
            if Instant::now() >= deadline {
                return Err(ScrubFailure::NotIdle(self.drain));
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

/// (a), the enclave's part of it.
pub(crate) fn check_ledger(context: &ScrubContext) -> Result<(), ScrubFailure> {
    if !context.ledger.is_closed() {
        return Err(ScrubFailure::LedgerOpen(
            context.ledger.begun.abs_diff(context.ledger.ended),
        ));
    }
    Ok(())
}

/// The load of an engine that is known.
pub(crate) async fn load(connector: &Connector, dialect: Dialect) -> Result<EngineLoad, EngineError> {
    dialect::load(connector, dialect).await
}

fn not_empty(load: &EngineLoad) -> ScrubFailure {
    let kv_in_use = load.kv_usage.is_some_and(|usage| usage != 0.0);
    ScrubFailure::NotEmpty {
        running: load.running,
        waiting: load.waiting,
        kv_in_use,
    }
}

/// Whether a directory holds nothing. One that cannot be read is not known to be empty.
fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}
