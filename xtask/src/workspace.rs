//! Where things are: the repository, the build folder and the cache outside it.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    error::{Context, Error, Result, bail},
    process,
};

/// Root of the repository.
pub(crate) fn root() -> &'static Path {
    // The manifest is in `xtask/`, one level down.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// A `cargo` command in the root of the repository; the same toolchain that built this program.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(cargo_program());
    command.current_dir(root());
    command
}

/// The same, ended with this process: see [`process::tied`].
pub(crate) fn tied_cargo() -> Command {
    let mut command = process::tied(cargo_program());
    command.current_dir(root());
    command
}

fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Folder of what is fetched once and shared by all checkouts: engine, model, clients, tools.
///
/// `$CLOISTER_CACHE`, or else `cloister` in `$XDG_CACHE_HOME` or `~/.cache`. It is created if missing.
///
/// # Errors
///
/// No home is known, or the folder cannot be made.
pub(crate) fn cache() -> Result<PathBuf> {
    let path = cache_path(
        env::var_os("CLOISTER_CACHE").map(PathBuf::from),
        env::var_os("XDG_CACHE_HOME").map(PathBuf::from),
        env::home_dir(),
    )?;
    fs::create_dir_all(&path).context(format_args!(
        "the cache {} cannot be made (CLOISTER_CACHE names another place)",
        path.display()
    ))?;
    path.canonicalize().context(path.display())
}

fn cache_path(own: Option<PathBuf>, xdg: Option<PathBuf>, home: Option<PathBuf>) -> Result<PathBuf> {
    let given = |path: &PathBuf| !path.as_os_str().is_empty();
    if let Some(own) = own.filter(given) {
        return Ok(own);
    }
    // The specification of XDG_CACHE_HOME says to ignore a relative path.
    if let Some(xdg) = xdg.filter(|path| path.is_absolute()) {
        return Ok(xdg.join("cloister"));
    }
    match home.filter(given) {
        Some(home) => Ok(home.join(".cache/cloister")),
        None => Err(Error::new(
            "no home folder is known: set CLOISTER_CACHE to a folder for downloads",
        )),
    }
}

/// What `cargo metadata` says, with or without the resolved dependencies.
///
/// # Errors
///
/// Cargo fails, or prints something that is not JSON.
pub(crate) fn metadata(resolved: bool) -> Result<Value> {
    let mut command = cargo();
    command.args(["metadata", "--format-version", "1"]);
    if !resolved {
        command.arg("--no-deps");
    }
    let output = process::output(&mut command)?;
    serde_json::from_str(&output).context("the output of cargo metadata")
}

/// Folder of the workspace's programs after a build with the development profile.
///
/// # Errors
///
/// `cargo metadata` names no build folder.
pub(crate) fn programs() -> Result<PathBuf> {
    let metadata = metadata(false)?;
    match metadata.get("target_directory").and_then(Value::as_str) {
        Some(target) => Ok(Path::new(target).join("debug")),
        None => bail!("cargo metadata names no target_directory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().join("Cargo.lock").is_file());
    }

    #[test]
    fn the_cache_is_named_before_it_is_guessed() {
        let path = |text: &str| Some(PathBuf::from(text));
        let cache = |own, xdg, home| cache_path(own, xdg, home).map(|path| path.display().to_string());
        assert_eq!(cache(path("/c"), path("/x"), path("/h")).unwrap(), "/c");
        assert_eq!(cache(path(""), path("/x"), path("/h")).unwrap(), "/x/cloister");
        assert_eq!(cache(None, path("relative"), path("/h")).unwrap(), "/h/.cache/cloister");
        let error = cache(None, None, None).unwrap_err();
        assert!(error.to_string().contains("CLOISTER_CACHE"), "{error}");
    }
}
