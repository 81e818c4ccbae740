//! `cargo xtask gen`: everything checked in that a program writes, or that has to agree with the code.

use crate::{args::Arguments, claims, compatibility, error::Result, process, workspace::cargo};

/// One example per generator: package and name. Each takes `--check` and then only compares.
const GENERATORS: &[(&str, &str)] = &[("cloister-proto", "generate")];

/// Runs each generator; with `--check` nothing is written. In any case documents are compared with the code.
///
/// # Errors
///
/// A generator fails, with `--check` a checked-in file differs, or a document names what does not exist.
pub(crate) fn main(mut arguments: Arguments) -> Result<()> {
    let check = arguments.flag("--check");
    arguments.finish()?;
    for (package, example) in GENERATORS {
        let mut command = cargo();
        command.args(["run", "--quiet", "--package", package, "--example", example, "--"]);
        command.args(check.then_some("--check"));
        process::stage(&format!("generator of {package}"), || process::run(&mut command))?;
    }
    process::stage("compatibility table", || compatibility::generate(check))?;
    process::stage("tests named in SECURITY.md", claims::check)
}
