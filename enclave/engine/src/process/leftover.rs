//! Engines of former enclave processes.
//!
//! The parent-death signal ends them; the record covers what it does not, as when the enclave died before the signal was set.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::error::StartError;

/// How long a killed process may take to be gone.
const END: Duration = Duration::from_secs(10);
/// Longest record in bytes.
const MAX_RECORD: u64 = 4096;

/// The processes of one engine, as written down for the enclave process that comes after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The kernel's own id of this boot: process ids mean nothing in another.
    kernel_boot: String,
    processes: Vec<Identity>,
}

/// A process that cannot be taken for a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pid: i32,
    /// Clock ticks from the kernel's boot to the start of the process.
    started: u64,
}

impl Record {
    /// The record of these processes; those that are gone already are left out.
    pub(crate) fn of(pids: impl IntoIterator<Item = i32>) -> Self {
        let processes = pids
            .into_iter()
            .filter_map(|pid| {
                Some(Identity {
                    pid,
                    started: started(pid)?,
                })
            })
            .collect();
        Self {
            kernel_boot: kernel_boot(),
            processes,
        }
    }

    /// Writes it for the enclave alone.
    pub(crate) fn write(&self, path: &Path) -> Result<(), StartError> {
        let text = serde_json::to_vec(self).map_err(std::io::Error::from);
        let write = |text: Vec<u8>| {
            let mut options = fs::OpenOptions::new();
            options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(path)?
                .write_all(&text)
        };
        text.and_then(write).map_err(|source| StartError::RuntimeDirectory {
            path: path.to_owned(),
            source,
        })
    }

    fn read(path: &Path) -> Option<Self> {
        if fs::metadata(path).ok()?.len() > MAX_RECORD {
            return None;
        }
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

/// Kills what the record of a former enclave process names, and waits until it is gone. Blocks for up to ten seconds.
///
/// # Errors
/// When a process does not go away.
pub(crate) fn end_leftover(path: &Path) -> Result<(), StartError> {
    let record = Record::read(path).filter(|record| record.kernel_boot == kernel_boot());
    for process in record.iter().flat_map(|record| &record.processes) {
        end(*process)?;
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(StartError::RuntimeDirectory {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn end(process: Identity) -> Result<(), StartError> {
    let Some(pid) = Pid::from_raw(process.pid) else {
        return Ok(());
    };
    // The descriptor first, then the check: so the process that is checked is the one that is killed.
    let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Ok(());
    };
    if started(process.pid) != Some(process.started) {
        return Ok(());
    }
    tracing::warn!("an engine of a former enclave process still runs and is killed");
    // It leads its group, if it is the first of the record; no other group has this id while it lives.
    let _ = kill_process_group(pid, Signal::KILL);
    let _ = pidfd_send_signal(&descriptor, Signal::KILL);
    let limit = Timespec {
        tv_sec: END.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&limit)) {
        Ok(ready) if ready > 0 => Ok(()),
        _ => Err(StartError::Leftover { pid: process.pid }),
    }
}

/// Field 22 of `/proc/PID/stat`; none when there is no such process.
fn started(pid: i32) -> Option<u64> {
    stat_field(pid, 19)
}

/// A number of `/proc/PID/stat`, counted from after the name, which may hold anything.
pub(super) fn stat_field(pid: i32, index: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(index)?.parse().ok()
}

fn kernel_boot() -> String {
    // Without it every record is of another boot, and the parent-death signal has to do.
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    fn sleeper() -> std::process::Child {
        Command::new("sleep")
            .arg("600")
            .process_group(0)
            .spawn()
            .expect("sleep runs")
    }

    fn pid(child: &std::process::Child) -> i32 {
        i32::try_from(child.id()).expect("a pid")
    }

    #[test]
    fn a_recorded_process_is_killed_and_the_record_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("record");
        let mut child = sleeper();
        Record::of([pid(&child)]).write(&path).expect("written");
        end_leftover(&path).expect("gone");
        assert_eq!(child.wait().expect("an end").signal(), Some(9));
        assert!(!path.exists());
        end_leftover(&path).expect("nothing to do");
    }

    #[test]
    fn a_later_process_with_the_same_id_is_spared() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("record");
        let mut child = sleeper();
        let genuine = Record::of([pid(&child)]);
        let mut other_start = genuine.clone();
        other_start
            .processes
            .iter_mut()
            .for_each(|process| process.started += 1);
        let other_boot = Record {
            kernel_boot: "another".to_owned(),
            ..genuine
        };
        for record in [other_start, other_boot] {
            record.write(&path).expect("written");
            end_leftover(&path).expect("nothing to do");
            assert!(child.try_wait().expect("a state").is_none(), "it still runs");
        }
        child.kill().expect("killed");
        child.wait().expect("an end");
    }

    #[test]
    fn a_record_that_is_no_record_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("record");
        for text in ["", "{}", "not json", &"x".repeat(8192)] {
            fs::write(&path, text).expect("written");
            end_leftover(&path).expect("nothing to do");
            assert!(!path.exists());
        }
    }
}
