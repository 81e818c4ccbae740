//! Fuzzing of the parsers of attestation, where there are nightly Rust and cargo-fuzz.

use std::{fs, process::Command};

use super::Report;
use crate::{
    error::{Context, Result},
    process,
    workspace::{cache, root},
};

const FOLDER: &str = "attestation";
const SECONDS_PER_TARGET: u32 = 120;
/// Of one input; real evidence has less, but for event logs, which no target reads.
const MAX_LEN: u32 = 131_072;

/// Runs each target for a bounded time, from the real evidence on.
///
/// # Errors
///
/// The targets cannot be listed, or the corpus has no place.
pub(super) fn run(report: &mut Report) -> Result<()> {
    let cargo_fuzz = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command
            .args(["+nightly", "fuzz"])
            .args(arguments)
            .current_dir(root().join(FOLDER));
        // Nightly's own compiler, not the one that runs this.
        command.env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
        command
    };
    if process::output(&mut cargo_fuzz(&["--version"])).is_err() {
        let reason = "fuzzing: needs nightly Rust and cargo-fuzz (cargo install cargo-fuzz)";
        report.skipped.push(reason.to_owned());
        report.counts.skipped += 1;
        return Ok(());
    }
    for target in process::output(&mut cargo_fuzz(&["list"]))?.lines() {
        let corpus = cache()?.join("fuzz").join(target);
        fs::create_dir_all(&corpus).context(corpus.display())?;
        let mut command = cargo_fuzz(&["run", target]);
        command.arg(&corpus).arg("testdata").arg("--").args([
            format!("-max_total_time={SECONDS_PER_TARGET}"),
            format!("-max_len={MAX_LEN}"),
            "-print_final_stats=1".to_owned(),
        ]);
        match process::run(&mut command) {
            Ok(()) => report.counts.passed += 1,
            Err(error) => {
                println!("fuzzing of {target}: {error}");
                report.counts.failed += 1;
            }
        }
    }
    Ok(())
}
