//! One program under test.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::time::{Instant, sleep};

use crate::wait::LIMIT;

/// How long a program that is dropped may take to stop by itself.
const GRACE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A running program in a process group of its own, with all it prints in a file. Dropping it stops it, and kills the
/// group if it does not stop.
#[derive(Debug)]
pub struct Child {
    child: process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts `program`. It ends with the thread that calls this, however that ends.
    pub fn start<A: AsRef<OsStr>>(program: &Path, arguments: &[A], log: PathBuf) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log file");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("CLOISTER_") {
                command.env_remove(name);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a log file"))
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        Self { child, log }
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of this process")
    }

    /// Kills this one process, not its group, as the kernel would, and waits for its end.
    pub fn kill_alone(&mut self) {
        let _ = kill_process(self.raw(), Signal::KILL);
        self.child.wait().expect("a child of this process");
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Panics
    /// When it does not.
    pub async fn stop(&mut self) -> ExitStatus {
        let _ = kill_process(self.raw(), Signal::TERM);
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not stop:\n{}", self.log());
            sleep(LOOK_AGAIN).await;
        }
    }

    fn raw(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Asked first: what it keeps outside its folder, in shared memory, only it can remove.
        let _ = kill_process(self.raw(), Signal::TERM);
        let deadline = std::time::Instant::now() + GRACE;
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if std::time::Instant::now() >= deadline {
                // It fails only if the group is gone.
                let _ = kill_process_group(self.raw(), Signal::KILL);
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(4000);
            println!(
                "--- end of {}:\n{}",
                self.log.display(),
                log.get(from..).unwrap_or_default()
            );
        }
    }
}
