//! Which requests shared a step.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Entries that are kept in memory; the file keeps all.
const KEPT: usize = 65_536;

/// One composition of the batch. It holds for every step from this one to the one before the next entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchEntry {
    /// Always true.
    pub simulated: bool,
    /// The first step that ran with it.
    pub step: u64,
    /// Who is in the batch, by the order of admission.
    pub batch: Vec<BatchMember>,
}

/// One sequence of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchMember {
    /// Number of the sequence, counted from 1 since the start.
    pub request: u64,
    /// The request's `cache_salt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_salt: Option<String>,
}

/// Keeps the compositions, and writes them down if there is a file.
pub(crate) struct BatchLog {
    kept: Mutex<VecDeque<BatchEntry>>,
    file: Option<File>,
}

impl BatchLog {
    pub(crate) fn create(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(File::create).transpose()?;
        Ok(Self {
            kept: Mutex::default(),
            file,
        })
    }

    pub(crate) fn push(&self, entry: BatchEntry) {
        if let Some(mut file) = self.file.as_ref() {
            // One write per line, so that a reader never sees half of one. A full disk must not end the simulation.
            if let Ok(mut line) = serde_json::to_vec(&entry) {
                line.push(b'\n');
                if let Err(error) = file.write_all(&line) {
                    tracing::warn!(%error, "simulated engine: cannot write the batch log");
                }
            }
        }
        let mut kept = self.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(entry);
    }

    pub(crate) fn entries(&self) -> Vec<BatchEntry> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<BatchEntry>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
