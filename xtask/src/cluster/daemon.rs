//! Programs that outlive this one, found again by process id and start time.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::{
    cluster::{LOOK_AGAIN, layout::Layout},
    error::{Context, Result},
};

/// How long a program may take to stop by itself.
const GRACE: Duration = Duration::from_secs(10);

/// Starts `program` in a session of its own, with all it prints in the log of its name, and notes which process it is.
///
/// # Errors
///
/// It cannot be started, or not be noted.
pub(super) fn start<I>(layout: &Layout, name: &str, program: &Path, arguments: I) -> Result<()>
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let log = layout.logs().join(format!("{name}.log"));
    let file = File::create(&log).context(log.display())?;
    let errors = file.try_clone().context(log.display())?;
    // `setsid` replaces itself where it need not fork, which it never has to as a child that leads no group.
    let child = Command::new("setsid")
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .spawn()
        .context(format_args!("{} cannot be started", program.display()))?;
    let note = format!("{} {}", child.id(), started(child.id()).unwrap_or_default());
    let path = layout.running().join(name);
    fs::write(&path, note).context(path.display())
}

/// Stops everything that was noted, and forgets it.
///
/// # Errors
///
/// The notes cannot be read.
pub(super) fn stop_all(layout: &Layout) -> Result<()> {
    let Ok(notes) = fs::read_dir(layout.running()) else {
        return Ok(());
    };
    let notes: Vec<_> = notes.flatten().map(|entry| entry.path()).collect();
    let pids: Vec<Pid> = notes.iter().filter_map(|note| noted(note)).collect();
    for pid in &pids {
        // It fails only if the process is gone.
        let _ = kill_process(*pid, Signal::TERM);
    }
    let deadline = Instant::now() + GRACE;
    for pid in pids {
        while runs(pid) && Instant::now() < deadline {
            std::thread::sleep(LOOK_AGAIN);
        }
        let _ = kill_process(pid, Signal::KILL);
    }
    for note in notes {
        fs::remove_file(&note).context(note.display())?;
    }
    Ok(())
}

/// The process of a note, if it is still that one: ids are given again.
fn noted(note: &Path) -> Option<Pid> {
    let text = fs::read_to_string(note).ok()?;
    let (pid, at) = text.split_once(' ')?;
    let pid: u32 = pid.parse().ok()?;
    let same = started(pid).is_some_and(|found| found == at);
    same.then(|| Pid::from_raw(i32::try_from(pid).ok()?)).flatten()
}

fn runs(pid: Pid) -> bool {
    // A process that has ended and that nobody has asked about is still there for signals.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    test_kill_process(pid).is_ok() && state.is_some_and(|state| state != 'Z')
}

/// When a process was started, in ticks since the machine was: field 22 of proc(5)'s stat.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_of_one_process_and_not_of_its_number() {
        let folder = std::env::temp_dir().join(format!("cloister-note-{}", std::process::id()));
        let own = std::process::id();
        fs::write(&folder, format!("{own} {}", started(own).unwrap())).unwrap();
        assert_eq!(
            noted(&folder).map(|pid| pid.as_raw_nonzero().get()),
            i32::try_from(own).ok()
        );
        fs::write(&folder, format!("{own} 1")).unwrap();
        assert_eq!(noted(&folder), None);
        fs::write(&folder, "").unwrap();
        assert_eq!(noted(&folder), None);
        fs::remove_file(&folder).unwrap();
    }
}
