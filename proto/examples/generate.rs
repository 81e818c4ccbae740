//! Writes the Rust code of `proto/*.proto` to `src/generated`, or with `--check` only compares.
//!
//! Exit codes: 0 written or equal, 1 the checked-in code differs from the `.proto` files, 2 it cannot be made.
//! The compiler is protox, so that no `protoc` has to be installed.
//! An example is built after its library: should the checked-in code not compile, empty that file first.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

const FILES: &[&str] = &["control.proto"];

fn main() -> ExitCode {
    let check = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        other => {
            eprintln!("unknown arguments {other:?}: give none, or --check");
            return ExitCode::from(2);
        }
    };
    match run(check) {
        Ok(stale) if stale.is_empty() => ExitCode::SUCCESS,
        Ok(stale) => {
            for path in stale {
                eprintln!(
                    "{} differs from the .proto files: run `cargo run -p cloister-proto --example generate` and commit the result",
                    path.display()
                );
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("the gRPC code cannot be generated: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns the files that differ; without `check` they are written instead.
fn run(check: bool) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked_in = root.join("src/generated");
    let fresh = tempfile::tempdir()?;
    generate(&root.join("proto"), fresh.path())?;

    let mut stale = Vec::new();
    for entry in fs::read_dir(fresh.path())? {
        let entry = entry?;
        let target = checked_in.join(entry.file_name());
        let code = fs::read(entry.path())?;
        if fs::read(&target).is_ok_and(|old| old == code) {
            continue;
        }
        if check {
            stale.push(target);
        } else {
            fs::write(&target, &code)?;
        }
    }
    for entry in fs::read_dir(&checked_in)? {
        let entry = entry?;
        if fresh.path().join(entry.file_name()).exists() {
            continue;
        }
        if check {
            stale.push(entry.path());
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(stale)
}

fn generate(protos: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    // `compile` of protox keeps the comments, which become the documentation.
    let mut compiler = protox::Compiler::new([protos])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(FILES)?;
    tonic_prost_build::configure()
        .out_dir(out)
        .emit_rerun_if_changed(false)
        .bytes(".")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
