//! `cargo xtask mutants`: changes the code of the checks one by one and lists the changes that no test noticed.

use std::{fs, path::Path, process::Command};

use crate::{
    args::Arguments,
    error::{Context, Result, bail},
    installed::{self, Tool},
    workspace::{cache, root},
};

const CARGO_MUTANTS: Tool = Tool {
    package: "cargo-mutants",
    version: "27.1.0",
};

/// Packages whose every check must have a test that fails without it.
const PACKAGES: &[&str] = &["cloister-session", "cloister-enclave-lease", "cloister-scheduler-core"];

/// cargo-mutants' exit codes of a run that came to its end: nothing survived, something did, something timed out.
const FINISHED: [i32; 3] = [0, 2, 3];

/// Runs the mutants and prints the survivors; `--package NAME` and `--file GLOB` narrow the run.
///
/// # Errors
///
/// The tool cannot be installed, the unchanged tests fail, or the run does not come to its end.
pub(crate) fn main(mut arguments: Arguments) -> Result<()> {
    let package = arguments.value::<String>("--package")?;
    let file = arguments.value::<String>("--file")?;
    arguments.finish()?;

    let output = cache()?.join("mutants");
    fs::create_dir_all(&output).context(output.display())?;
    let mut command = Command::new(installed::program(CARGO_MUTANTS)?);
    command.current_dir(root()).args(["mutants", "--output"]).arg(&output);
    for package in package.as_deref().as_ref().map_or(PACKAGES, std::slice::from_ref) {
        command.args(["--package", package]);
    }
    if let Some(file) = &file {
        command.args(["--file", file]);
    }
    let status = command.status().context("cargo-mutants cannot be started")?;
    if !status.code().is_some_and(|code| FINISHED.contains(&code)) {
        bail!("cargo-mutants stopped ({status}): do the tests pass without a change?");
    }
    report(&output.join("mutants.out"))
}

/// Prints the mutants that lived or never ended.
fn report(folder: &Path) -> Result<()> {
    for (file, meaning) in [("missed.txt", "survived"), ("timeout.txt", "timed out")] {
        let path = folder.join(file);
        let text = fs::read_to_string(&path).context(path.display())?;
        println!("{} {meaning}", text.lines().count());
        text.lines().for_each(|mutant| println!("  {mutant}"));
    }
    Ok(())
}
