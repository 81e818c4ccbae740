//! Runs other programs and says which one failed.

use std::{
    ffi::OsStr,
    io::{self, IsTerminal},
    os::fd::AsFd,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::error::{Context, Error, Result, bail};

/// A command for `program` that gets TERM when this process is gone, however it went: nothing runs on unattended.
///
/// `program` is looked for in `PATH`; `setpriv` of util-linux must be there.
pub(crate) fn tied(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    command
}

/// Runs `command` to its end with its output shown.
///
/// # Errors
///
/// It cannot be started, or ends with anything but success.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .context(format_args!("{} cannot be started", name(command)))?;
    if status.success() {
        return Ok(());
    }
    bail!("{} failed ({status})", line(command))
}

/// Like [`run`], with what the program prints on standard output shown on standard error: standard output of this tool
/// belongs to its results.
///
/// # Errors
///
/// Those of [`run`], and a standard error that cannot be duplicated.
pub(crate) fn run_on_stderr(command: &mut Command) -> Result<()> {
    let stderr = io::stderr().as_fd().try_clone_to_owned().context("standard error")?;
    run(command.stdout(Stdio::from(stderr)))
}

/// Standard output of `command`, which must be UTF-8.
///
/// # Errors
///
/// It cannot be started, or fails: the message then ends with what it wrote to standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .context(format_args!("{} cannot be started", name(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", line(command), output.status, stderr.trim());
    }
    String::from_utf8(output.stdout).context(format_args!("the output of {}", line(command)))
}

/// Whether `command` starts and succeeds; its output is thrown away.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether a person watches: progress is drawn only then.
pub(crate) fn watched() -> bool {
    io::stderr().is_terminal()
}

/// Runs one stage of a task, with its name before and its time after it on standard error.
///
/// # Errors
///
/// Those of the stage, with its name before them.
pub(crate) fn stage<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {name}");
    let started = Instant::now();
    let result = work();
    let verdict = if result.is_ok() { "done" } else { "FAILED" };
    eprintln!("==> {name}: {verdict} in {}", seconds(started.elapsed()));
    result.map_err(|error| Error::new(format!("{name}: {error}")))
}

/// A time as text, in seconds with one decimal or in minutes.
pub(crate) fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn line(command: &Command) -> String {
    let mut line = format!("`{}", name(command));
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line.push('`');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_is_returned_and_failure_explained() {
        assert_eq!(output(&mut shell("echo yes")).unwrap(), "yes\n");
        let error = output(&mut shell("echo broken >&2; exit 3")).unwrap_err().to_string();
        assert!(error.contains("broken") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("cloister-no-such-program"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("cloister-no-such-program cannot be started"), "{error}");
        assert!(!succeeds(&mut Command::new("cloister-no-such-program")));
    }

    #[test]
    fn times_are_short() {
        assert_eq!(seconds(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(61)), "1 min 01 s");
    }
}
