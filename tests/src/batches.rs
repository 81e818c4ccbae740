//! What the simulated engine had in one batch, step by step.

use std::{
    collections::HashSet,
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use cloister_engine_simulator::BatchEntry;

/// Name of the log in the engine's own folder, which is its working directory.
pub const FILE: &str = "batch.log";
/// The enclave's probe has this salt after an epoch without requests, the same in every such epoch.
const PROBE_SALT: &str = "cloister-probe";
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The batch logs of every engine process of an enclave. The folder goes with each process, so a thread opens each log
/// while it is there.
#[derive(Debug)]
pub struct Batches {
    logs: Arc<Mutex<Vec<File>>>,
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a log shows, if it shows nothing forbidden.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Cache salts in their order, one per tenant and epoch.
    pub salts: Vec<String>,
    /// Most sequences in one step.
    pub most: usize,
    /// Different batches.
    pub batches: usize,
}

impl Batches {
    /// Follows the engines of one runtime folder.
    #[must_use]
    pub fn follow(runtime_dir: &Path) -> Self {
        let path = runtime_dir.join("engine").join(FILE);
        let (logs, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (path, logs, stop) = (path.clone(), Arc::clone(&logs), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Acquire) {
                    open_new(&path, &logs);
                    thread::sleep(LOOK_AGAIN);
                }
            }
        });
        Self {
            logs,
            path,
            stop,
            thread: Some(thread),
        }
    }

    /// Every batch so far, of each engine process.
    #[must_use]
    pub fn entries(&self) -> Vec<Vec<BatchEntry>> {
        open_new(&self.path, &self.logs);
        lock(&self.logs).iter().map(read).collect()
    }

    /// Checks that no step ever held two tenants, and that no tenant came back under an epoch that was over.
    ///
    /// The enclave gives all requests of one tenant and epoch (of members that share their cache) one salt of their own.
    ///
    /// # Panics
    /// When a step held two.
    pub fn assert_exclusive(&self) -> Shown {
        let mut all = Shown::default();
        for process in self.entries() {
            let shown = check(&process).unwrap_or_else(|problem| panic!("{problem}"));
            all.salts.extend(shown.salts);
            all.most = all.most.max(shown.most);
            all.batches += shown.batches;
        }
        all
    }

    /// Sequences that the engine has run so far, the enclave's own probes among them.
    #[must_use]
    pub fn requests(&self) -> usize {
        let count = |process: &Vec<BatchEntry>| {
            let numbers: HashSet<u64> = process
                .iter()
                .flat_map(|entry| &entry.batch)
                .map(|one| one.request)
                .collect();
            numbers.len()
        };
        self.entries().iter().map(count).sum()
    }

    /// Salts in their order, without the probe's own.
    #[must_use]
    pub fn salts(&self) -> Vec<String> {
        self.assert_exclusive().salts
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(logs: &Mutex<Vec<File>>) -> MutexGuard<'_, Vec<File>> {
    logs.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_new(path: &Path, logs: &Mutex<Vec<File>>) {
    let mut logs = lock(logs);
    let Ok(file) = File::open(path) else { return };
    let inode = |file: &File| file.metadata().map(|found| (found.dev(), found.ino())).ok();
    // An open file keeps its inode, so a new log has another.
    if logs.last().and_then(inode) != inode(&file) {
        logs.push(file);
    }
}

fn read(file: &File) -> Vec<BatchEntry> {
    let mut text = Vec::new();
    let mut buffer = [0; 64 * 1024];
    loop {
        match file.read_at(&mut buffer, text.len() as u64) {
            Ok(0) => break,
            Ok(read) => text.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("the batch log cannot be read: {error}"),
        }
    }
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).expect("a line of the batch log"))
        .collect()
}

fn check(entries: &[BatchEntry]) -> Result<Shown, String> {
    let mut shown = Shown::default();
    for entry in entries {
        shown.batches += 1;
        shown.most = shown.most.max(entry.batch.len());
        for member in &entry.batch {
            let Some(salt) = member.cache_salt.as_deref() else {
                return Err(format!("step {}: a request without a cache salt", entry.step));
            };
            if entry.batch[0].cache_salt.as_deref() != Some(salt) {
                return Err(format!("step {}: two tenants in one batch: {entry:?}", entry.step));
            }
            if salt == PROBE_SALT || shown.salts.last().is_some_and(|last| last == salt) {
                continue;
            }
            if shown.salts.iter().any(|earlier| earlier == salt) {
                return Err(format!("step {}: a tenant came back under a former epoch", entry.step));
            }
            shown.salts.push(salt.to_owned());
        }
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use cloister_engine_simulator::BatchMember;

    use super::*;

    fn entries(steps: &[&[&str]]) -> Vec<BatchEntry> {
        let member = |salt: &&str| BatchMember {
            request: 1,
            cache_salt: (!salt.is_empty()).then(|| (*salt).to_owned()),
        };
        steps
            .iter()
            .map(|salts| BatchEntry {
                simulated: true,
                step: 1,
                batch: salts.iter().map(member).collect(),
            })
            .collect()
    }

    #[test]
    fn mixing_is_seen() {
        let shown = check(&entries(&[&["a", "a"], &[], &[PROBE_SALT], &["b"], &[PROBE_SALT]])).unwrap();
        assert_eq!((shown.salts, shown.most), (vec!["a".to_owned(), "b".to_owned()], 2));
        assert!(check(&entries(&[&["a", "b"]])).is_err(), "two in one step");
        assert!(check(&entries(&[&["a", ""]])).is_err(), "no salt");
        assert!(
            check(&entries(&[&["a"], &["b"], &["a"]])).is_err(),
            "back after its end"
        );
    }
}
