//! `cargo xtask bench`: what sealing costs, measured with the release profile.

use std::path::{self, PathBuf};

use crate::{
    args::Arguments,
    assets,
    error::{Context, Result},
    process, tools,
    workspace::{cache, cargo, programs},
};

/// The section that needs the real engine.
const REAL: &str = "real";

/// Runs the benches, prints their table and writes the numbers as JSON.
///
/// # Errors
///
/// They do not build, or cannot run. No number is an error.
pub(crate) fn main(mut arguments: Arguments) -> Result<()> {
    let quick = arguments.flag("--quick");
    let only = arguments.value::<String>("--only")?;
    let json = arguments.value::<PathBuf>("--json")?;
    arguments.finish()?;

    tools::require(tools::TOOLS)?;
    if wants_real(only.as_deref()) {
        assets::engine()?;
        assets::model()?;
    }
    let json = match json {
        // The benches run in the folder of their package.
        Some(json) => path::absolute(&json).context(json.display())?,
        None => programs()?.with_file_name("bench.json"),
    };
    let mut command = cargo();
    command.args([
        "bench",
        "--locked",
        "--package",
        "cloister-tests",
        "--bench",
        "speed",
        "--",
    ]);
    command.args(quick.then_some("--quick")).arg("--json").arg(&json);
    if let Some(only) = &only {
        command.args(["--only", only]);
    }
    process::run(command.env("CLOISTER_CACHE", cache()?))?;
    eprintln!("written to {}", json.display());
    Ok(())
}

fn wants_real(only: Option<&str>) -> bool {
    only.is_none_or(|only| only.split(',').any(|section| section == REAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_fetched_only_if_it_is_measured() {
        assert!(wants_real(None));
        assert!(wants_real(Some("session,real")));
        assert!(!wants_real(Some("session,sealed")));
    }
}
