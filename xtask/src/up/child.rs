//! One child process with its log.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self as system, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::{
    error::{Context, Result},
    process,
};

/// Lines of a log that are shown when its process dies.
const TAIL_LINES: usize = 20;
/// Bytes at the end of a log in which those lines are looked for.
const TAIL_BYTES: i64 = 16 * 1024;

/// A running program in a process group of its own.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    log: PathBuf,
    child: system::Child,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts `program`, with everything it prints in `log`.
    ///
    /// # Errors
    ///
    /// The log cannot be made or the program cannot be started.
    pub(super) fn start(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = OsString>,
        log: PathBuf,
    ) -> Result<Self> {
        let file = File::create(&log).context(log.display())?;
        let errors = file.try_clone().context(log.display())?;
        let mut command = process::tied(program);
        clean_environment(&mut command);
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            // Ctrl-C reaches this process only, which then stops its children in order.
            .process_group(0)
            .spawn()
            .context(format_args!("{} cannot be started", program.display()))?;
        Ok(Self {
            name: name.to_owned(),
            log,
            child,
            ended: None,
        })
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    ///
    /// The process cannot be waited for.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().context(&self.name)?;
        }
        Ok(self.ended)
    }

    /// What to say about a child that ended unasked: how, and the end of its log.
    pub(super) fn obituary(&self) -> String {
        let how = self.ended.map_or("lost".to_owned(), |status| status.to_string());
        let tail = tail(&self.log).unwrap_or_else(|error| format!("(no log: {error})\n"));
        format!(
            "{} ended ({how}); the end of {}:\n{tail}",
            self.name,
            self.log.display()
        )
    }

    fn signal(&self, signal: Signal) {
        if self.ended.is_none()
            && let Ok(id) = i32::try_from(self.child.id())
            && let Some(group) = Pid::from_raw(id)
        {
            // It fails only if the group is gone, which is what is wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

/// Ends all of `children` at once: TERM, then after `grace` KILL, each for the whole process group. None is left running.
///
/// # Errors
///
/// A process cannot be waited for; the others are ended all the same.
pub(super) fn stop_all(children: &mut [Child], grace: Duration) -> Result<()> {
    for child in &*children {
        child.signal(Signal::TERM);
    }
    let deadline = Instant::now() + grace;
    let mut result = Ok(());
    for child in &mut *children {
        loop {
            match child.ended() {
                Ok(Some(_)) => break,
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
                Ok(None) => {
                    eprintln!("{} does not stop by itself and is killed", child.name);
                    child.signal(Signal::KILL);
                    child.ended = child.child.wait().ok();
                    break;
                }
                Err(error) => {
                    child.signal(Signal::KILL);
                    result = Err(error);
                    break;
                }
            }
        }
    }
    result
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let size = i64::try_from(fs::metadata(log)?.len()).unwrap_or(i64::MAX);
    file.seek(SeekFrom::End(-size.min(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let skipped = lines.len().saturating_sub(TAIL_LINES);
    Ok(lines.iter().skip(skipped).map(|line| format!("  {line}\n")).collect())
}

/// Takes the caller's `CLOISTER_` variables away from `command`: they would override its configuration file.
pub(super) fn clean_environment(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CLOISTER_") {
            command.env_remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(name: &str, script: &str) -> Child {
        let log = env::temp_dir().join(format!("cloister-xtask-{name}-{}.log", system::id()));
        Child::start(name, Path::new("/bin/sh"), ["-c".into(), script.into()], log).unwrap()
    }

    fn wait_for_log(child: &Child, text: &str) {
        while !fs::read_to_string(&child.log).unwrap().contains(text) {
            thread::yield_now();
        }
    }

    #[test]
    fn a_death_is_reported_with_the_end_of_the_log() {
        let mut child = shell(
            "death",
            "for i in $(seq 30); do echo line $i; done; echo broken >&2; exit 7",
        );
        child.ended = Some(child.child.wait().unwrap());
        let text = child.obituary();
        fs::remove_file(&child.log).unwrap();
        assert!(
            text.contains("death ended (exit status: 7)") && text.contains("  broken\n"),
            "{text}"
        );
        assert!(text.contains("  line 12\n") && !text.contains("  line 11\n"), "{text}");
    }

    #[test]
    fn children_are_asked_and_then_killed_with_their_own_children() {
        let script = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ up; while :; do sleep 1; done' & wait; wait";
        let mut children = [shell("polite", "echo up; exec sleep 600"), shell("deaf", script)];
        for child in &children {
            wait_for_log(child, "up");
        }
        let grandchild = fs::read_to_string(&children[1].log).unwrap();
        let grandchild: i32 = grandchild.split(' ').next().unwrap().parse().unwrap();
        stop_all(&mut children, Duration::from_millis(200)).unwrap();
        for child in &mut children {
            assert!(
                child.ended().unwrap().is_some_and(|status| !status.success()),
                "{child:?}"
            );
            fs::remove_file(&child.log).unwrap();
        }
        // KILL is on its way; the grandchild ends, and at most waits to be collected by init.
        let state = || fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        while !(state().is_empty() || state().contains(") Z") || state().contains(") X")) {
            thread::yield_now();
        }
    }
}
