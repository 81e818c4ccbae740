//! `cargo xtask gen`: everything checked in that a program writes.

use crate::{args::Arguments, error::Result, process, workspace::cargo};

/// One example per generator: package and name. Each takes `--check` and then only compares.
const GENERATORS: &[(&str, &str)] = &[("cloister-proto", "generate")];

/// Runs each generator; with `--check` nothing is written.
///
/// # Errors
///
/// A generator fails, or with `--check` a checked-in file differs.
pub(crate) fn main(mut arguments: Arguments) -> Result<()> {
    let check = arguments.flag("--check");
    arguments.finish()?;
    for (package, example) in GENERATORS {
        let mut command = cargo();
        command.args(["run", "--quiet", "--package", package, "--example", example, "--"]);
        command.args(check.then_some("--check"));
        process::stage(&format!("generator of {package}"), || process::run(&mut command))?;
    }
    Ok(())
}
