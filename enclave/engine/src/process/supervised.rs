//! One running process, watched from a thread of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::sync::{oneshot, watch};

use super::leftover::stat_field;

/// How long the first process of the namespaces may take to be gone after it was killed.
const END_SECONDS: i64 = 10;

/// A child process with its group. Dropping it kills the group.
pub(crate) struct Process {
    pid: i32,
    shared: Arc<Mutex<Shared>>,
    ended: watch::Receiver<bool>,
}

/// What may be signalled. Emptied before the process ids can belong to others.
struct Shared {
    group: Option<Pid>,
    /// First process of the engine's own namespaces: when it ends, the kernel ends all others in them.
    init: Option<OwnedFd>,
}

impl Process {
    /// Starts the command as the leader of a new process group.
    ///
    /// The parent-death signal is sent when the *thread* that started the child ends. So the thread is one of its own, which
    /// lives exactly as long as the child.
    pub(crate) async fn spawn(mut command: Command) -> io::Result<Self> {
        command.process_group(0);
        let (report, reported) = oneshot::channel();
        let (ended_sender, ended) = watch::channel(false);
        std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => {
                    // Nobody waits any more if the start was given up.
                    let _ = report.send(Err(error));
                    return;
                }
            };
            let shared = Arc::new(Mutex::new(Shared {
                group: pid_of(&child),
                init: None,
            }));
            let process = Self {
                pid: i32::try_from(child.id()).unwrap_or_default(),
                shared: Arc::clone(&shared),
                ended,
            };
            // Given up in between: dropping the value kills the child, and the wait below reaps it.
            let _ = report.send(Ok(process));
            watch(&mut child, &shared);
            ended_sender.send_replace(true);
        })?;
        reported
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the thread of the engine ended")))
    }

    /// Looks for the first process of the engine's own namespaces, once they are there. Its id, if there is one.
    pub(crate) fn find_init(&self) -> Option<i32> {
        let child = children(self.pid).first().copied()?;
        let descriptor = pidfd_open(Pid::from_raw(child)?, PidfdFlags::empty()).ok()?;
        // Still the same process now that it is held.
        if stat_field(child, 1) != u64::try_from(self.pid).ok() {
            return None;
        }
        lock(&self.shared).init = Some(descriptor);
        Some(child)
    }

    /// The process id of the leader.
    pub(crate) const fn pid(&self) -> i32 {
        self.pid
    }

    /// True once the process has ended and was reaped.
    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.clone()
    }

    /// TERM, and KILL if that does not do within `grace`; returns when the process is gone.
    pub(crate) async fn stop(&self, grace: Duration) {
        let mut ended = self.ended();
        signal_group(&self.shared, Signal::TERM);
        if tokio::time::timeout(grace, ended.wait_for(|ended| *ended))
            .await
            .is_err()
        {
            kill(&self.shared);
            // KILL cannot be refused. The sender says so, or is gone with its thread.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill(&self.shared);
    }
}

/// Waits for the end of the child, ends what is left of its group and namespaces, and reaps it.
fn watch(child: &mut Child, shared: &Mutex<Shared>) {
    let group = lock(shared).group;
    if let Some(pid) = group {
        // Without reaping: until then the ids belong to nobody else. Interrupted waits are taken up again.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(pid), options).is_err_and(|error| error == rustix::io::Errno::INTR) {}
    }
    kill(shared);
    let init = {
        let mut shared = lock(shared);
        shared.group = None;
        shared.init.take()
    };
    if let Some(init) = init {
        let limit = Timespec {
            tv_sec: END_SECONDS,
            tv_nsec: 0,
        };
        let gone = poll(&mut [PollFd::new(&init, PollFlags::IN)], Some(&limit));
        if !gone.is_ok_and(|ready| ready > 0) {
            tracing::error!("a killed engine process does not end");
        }
    }
    // The only error is that there is no such child.
    let _ = child.wait();
}

fn kill(shared: &Mutex<Shared>) {
    signal_group(shared, Signal::KILL);
    if let Some(init) = &lock(shared).init {
        // Gone already is as good.
        let _ = pidfd_send_signal(init, Signal::KILL);
    }
}

fn signal_group(shared: &Mutex<Shared>, signal: Signal) {
    if let Some(group) = lock(shared).group {
        // A group whose members have all ended is as good.
        let _ = kill_process_group(group, signal);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Children of a process, from `/proc`.
fn children(parent: i32) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat_field(*pid, 1) == u64::try_from(parent).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn an_end_is_announced() {
        let process = Process::spawn(shell("exit 3")).await.expect("a process");
        process.ended().wait_for(|ended| *ended).await.expect("an end");
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_an_error() {
        assert!(Process::spawn(Command::new("/nonexistent/program")).await.is_err());
    }

    #[tokio::test]
    async fn a_process_that_ignores_term_is_killed_with_its_children() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("child");
        let script = format!(
            "trap '' TERM; sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait; wait",
            path.display()
        );
        let process = Process::spawn(shell(&script)).await.expect("a process");
        let child: i32 = loop {
            match std::fs::read_to_string(&path) {
                Ok(text) => break text.trim().parse().expect("a pid"),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert!(children(process.pid()).contains(&child));
        process.stop(Duration::from_millis(10)).await;
        assert!(*process.ended().borrow());
        // Reparented and reaped by whoever adopts it; at most a zombie until then.
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_else(|_| ") Z".to_owned());
        assert!(state.contains(") Z"), "{state}");
    }

    #[tokio::test]
    async fn dropping_it_kills_it() {
        let process = Process::spawn(shell("exec sleep 600")).await.expect("a process");
        let mut ended = process.ended();
        drop(process);
        ended.wait_for(|ended| *ended).await.expect("an end");
    }
}
