//! Where tests find this library; included by each with `#[path]`, since cargo builds a library of this kind for no test.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The library as it is now, built once.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // .../target/debug/deps/machine-0123
        let own = env::current_exe().unwrap();
        let folder = own.ancestors().nth(2).unwrap().to_owned();
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // Anywhere in the workspace.
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.args(["build", "--quiet", "--locked", "--package", "cloister-fake-nvml"]);
        cargo.arg("--target-dir").arg(folder.parent().unwrap());
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the fake library does not build");
        folder.join("libcloister_fake_nvml.so")
    })
}
