//! The programs under test.

use std::{env, path::PathBuf, process::Command, sync::OnceLock};

/// Paths of the built programs.
#[derive(Debug)]
pub struct Programs {
    /// `cloister`.
    pub cloister: PathBuf,
    /// `cloister-scheduler`.
    pub scheduler: PathBuf,
    /// `cloister-enclave`.
    pub enclave: PathBuf,
    /// `cloister-engine-simulator`.
    pub simulator: PathBuf,
    /// Where tests may keep what takes long to make.
    pub scratch: PathBuf,
}

/// Packages of the programs: those that `cargo xtask up` builds, so that both use the same build.
const PACKAGES: [&str; 4] = [
    "cloister-cli",
    "cloister-scheduler",
    "cloister-enclave",
    "cloister-engine-simulator",
];

/// The programs, as they are now: cargo builds programs of other packages for no test, so this does, once per test program.
/// `cargo xtask test`, which says so by `CLOISTER_TEST_TIER`, has built them already.
pub fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        // .../target/debug/deps/session-0123
        let own = env::current_exe().expect("the path of this program");
        let folder = own.ancestors().nth(2).expect("a build folder").to_owned();
        if env::var_os("CLOISTER_TEST_TIER").is_none() {
            build(&folder);
        }
        let program = |name: &str| {
            let path = folder.join(name);
            assert!(path.is_file(), "{} has not been built", path.display());
            path
        };
        Programs {
            cloister: program("cloister"),
            scheduler: program("cloister-scheduler"),
            enclave: program("cloister-enclave"),
            simulator: program("cloister-engine-simulator"),
            scratch: folder.with_file_name("tmp").join("cloister-tests"),
        }
    })
}

fn build(folder: &std::path::Path) {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    cargo.args(["build", "--quiet", "--locked", "--bins"]);
    cargo.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    cargo.arg("--target-dir").arg(folder.parent().expect("a target folder"));
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo starts");
    assert!(status.success(), "the programs do not build");
}
