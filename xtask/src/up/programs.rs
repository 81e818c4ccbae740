//! The programs that a deployment consists of, built from this repository.

use std::path::PathBuf;

use crate::{
    error::{Result, bail},
    process,
    workspace::{self, tied_cargo},
};

/// Paths of the built programs.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    /// `cloister`: set-up and the local proxy.
    pub(super) cloister: PathBuf,
    pub(super) scheduler: PathBuf,
    pub(super) enclave: PathBuf,
    pub(super) engine_simulator: PathBuf,
}

/// The packages that have them.
const PACKAGES: [&str; 4] = [
    "cloister-cli",
    "cloister-scheduler",
    "cloister-enclave",
    "cloister-engine-simulator",
];

impl Programs {
    /// Builds the programs with the development profile, all in one run of cargo.
    ///
    /// # Errors
    ///
    /// They do not build.
    pub(super) fn build() -> Result<Self> {
        let mut build = tied_cargo();
        build.args(["build", "--locked", "--bins"]);
        for package in PACKAGES {
            build.args(["--package", package]);
        }
        if !process::watched() {
            build.arg("--quiet");
        }
        eprintln!("building the programs (minutes, the first time)");
        process::run_on_stderr(&mut build)?;
        Self::built()
    }

    /// The programs of an earlier build.
    ///
    /// # Errors
    ///
    /// One is not there.
    pub(super) fn built() -> Result<Self> {
        let folder = workspace::programs()?;
        let program = |name: &str| -> Result<PathBuf> {
            let path = folder.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                bail!("{} has not been built", path.display())
            }
        };
        Ok(Self {
            cloister: program("cloister")?,
            scheduler: program("cloister-scheduler")?,
            enclave: program("cloister-enclave")?,
            engine_simulator: program("cloister-engine-simulator")?,
        })
    }
}
