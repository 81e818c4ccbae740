//! Development tools written in Rust, installed at a pinned version into the cache.

use std::path::PathBuf;

use crate::{
    error::{Result, bail},
    process,
    workspace::{cache, cargo},
};

/// A package of Rust's registry whose program has the package's name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    /// Name of the package and of its program.
    pub(crate) package: &'static str,
    /// The version that was tried with this repository.
    pub(crate) version: &'static str,
}

/// Path of the tool's program, installed first if the cache has not got this version.
///
/// # Errors
///
/// The package cannot be fetched or built.
pub(crate) fn program(tool: Tool) -> Result<PathBuf> {
    // The version is part of the path: checkouts of different ages share one cache.
    let root = cache()?
        .join("tools")
        .join(format!("{}-{}", tool.package, tool.version));
    let program = root.join("bin").join(tool.package);
    // Cargo puts a program there in one step, when it is complete.
    if program.is_file() {
        return Ok(program);
    }
    eprintln!(
        "installing {} {} into {} (minutes, once)",
        tool.package,
        tool.version,
        root.display()
    );
    let mut install = cargo();
    install
        .args(["install", "--quiet", "--locked", "--version", tool.version, "--root"])
        .arg(&root)
        .arg(tool.package)
        // Its objects go to a temporary folder that cargo removes, not into the build folder of this workspace.
        .env_remove("CARGO_TARGET_DIR");
    process::run_on_stderr(&mut install)?;
    if !program.is_file() {
        bail!(
            "cargo install left no {}: remove {} and try again",
            program.display(),
            root.display()
        );
    }
    Ok(program)
}
