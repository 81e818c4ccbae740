//! Tests in Python: scripts in `tests/e2e` that use the official client against a running deployment, and scripts in
//! `tests/attestation` that check what our verifier writes by other people's libraries.
//!
//! A script may name the deployment it wants in a line `# up: --tenants 2 --engine simulator` (the options of
//! `cargo xtask up`, or `none`); scripts that want the same share one. It finds the OpenAI API in `CLOISTER_BASE_URL`,
//! those of all tenants in `CLOISTER_BASE_URLS` (separated by spaces), the folder of keys, configurations and logs in
//! `CLOISTER_STATE`, and the program behind `cargo xtask` in `CLOISTER_XTASK`. Its last line on standard output is
//! `N passed, N failed`, and `, N skipped` if there are any; reasons are lines `skipped: REASON`.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Counts, Report, lines};
use crate::{
    args::Arguments,
    assets,
    error::{Context, Result, bail},
    up::{Deployment, Interrupts, Options, Parts},
    workspace::{programs, root},
};

/// A script that hangs is ended after this many seconds.
const LIMIT_SECONDS: &str = "900";

const WANTED: &str = "# up:";
const NONE: &str = "none";

/// Runs all scripts.
///
/// # Errors
///
/// A deployment cannot be started, or a script cannot.
pub(super) fn run(report: &mut Report) -> Result<()> {
    all_in("tests/e2e", assets::openai_client, report)?;
    all_in("tests/attestation", assets::result_reader, report)
}

/// Runs the scripts of a folder with the libraries they need.
fn all_in(folder: &str, libraries: fn() -> Result<PathBuf>, report: &mut Report) -> Result<()> {
    let scripts = by_deployment(&root().join(folder))?;
    if scripts.is_empty() {
        return Ok(());
    }
    let client = libraries()?;
    for (options, scripts) in scripts {
        let mut running = None;
        for script in scripts {
            if options == NONE {
                report.counts += script_in(None, &script, &client, &mut report.skipped)?;
                continue;
            }
            let mut deployment = match running.take() {
                Some(deployment) => deployment,
                None => start(&options)?,
            };
            let counts = script_in(Some(&deployment), &script, &client, &mut report.skipped);
            if !counts.as_ref().is_ok_and(|counts| counts.failed == 0) {
                deployment.keep_state();
            }
            running = keep(deployment)?;
            report.counts += counts?;
        }
        running.map_or(Ok(()), Deployment::stop)?;
    }
    Ok(())
}

/// The test of `cargo xtask cluster`, which brings a cluster up and down.
///
/// # Errors
///
/// The script cannot be started.
pub(super) fn cluster(report: &mut Report) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        report.counts.skipped += 1;
        report.skipped.push("the cluster needs root".to_owned());
        return Ok(());
    }
    let client = assets::openai_client()?;
    report.counts += script_in(
        None,
        &root().join("tests/cluster/check.py"),
        &client,
        &mut report.skipped,
    )?;
    Ok(())
}

fn start(options: &str) -> Result<Deployment> {
    eprintln!("deployment: up {options}");
    let mut arguments = Arguments::new(options.split_whitespace().map(OsString::from))?;
    let wanted = Options::parse(&mut arguments)?.on_free_ports().built();
    arguments.finish()?;
    let parts = Parts::gather(&wanted)?;
    match Deployment::start(&wanted, parts, Interrupts::none())? {
        Some(deployment) => Ok(deployment),
        None => bail!("stopped before the deployment was ready"),
    }
}

/// Scripts share a deployment as long as none of them ends a part of it.
fn keep(mut deployment: Deployment) -> Result<Option<Deployment>> {
    if deployment.is_whole()? {
        return Ok(Some(deployment));
    }
    deployment.stop()?;
    Ok(None)
}

/// The scripts of `folder`, by the options they want.
fn by_deployment(folder: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut scripts: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    if !folder.is_dir() {
        return Ok(scripts);
    }
    for entry in fs::read_dir(folder).context(folder.display())? {
        let path = entry.context(folder.display())?.path();
        let is_library = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('_'));
        if path.extension().is_none_or(|extension| extension != "py") || is_library {
            continue;
        }
        let text = fs::read_to_string(&path).context(path.display())?;
        let options = text
            .lines()
            .find_map(|line| line.strip_prefix(WANTED))
            .unwrap_or_default();
        scripts.entry(options.trim().to_owned()).or_default().push(path);
    }
    scripts.values_mut().for_each(|scripts| scripts.sort());
    Ok(scripts)
}

fn script_in(
    deployment: Option<&Deployment>,
    script: &Path,
    client: &Path,
    skipped: &mut Vec<String>,
) -> Result<Counts> {
    let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
    eprintln!("script {name}");
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=10", LIMIT_SECONDS, "python3"])
        .arg(script)
        .current_dir(root())
        .env("PYTHONPATH", client)
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("CLOISTER_XTASK", programs()?.join("xtask"));
    if let Some(deployment) = deployment {
        let base_urls = deployment.base_urls();
        command
            .env("CLOISTER_BASE_URL", base_urls.first().map_or("", String::as_str))
            .env("CLOISTER_BASE_URLS", base_urls.join(" "))
            .env("CLOISTER_STATE", deployment.state());
    }
    let mut closing = None;
    let success = lines(&mut command, |line| {
        println!("{line}");
        closing = Counts::from_closing_line(line);
        skipped.extend(line.strip_prefix("skipped: ").map(|reason| format!("{name}: {reason}")));
    })?;
    let mut counts = closing.unwrap_or_else(|| {
        eprintln!("{name} did not end with `N passed, N failed` within {LIMIT_SECONDS} s");
        Counts::default()
    });
    // A script that breaks off has failed, whatever it counted until then.
    let success = success && closing.is_some();
    if !success {
        counts.failed = counts.failed.max(1);
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_grouped_by_what_they_want() {
        let folder = std::env::temp_dir().join(format!("cloister-xtask-scripts-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in [
            ("b.py", "import openai\n"),
            ("a.py", "\"\"\"Doc.\"\"\"\n# no options\n"),
            ("c.py", "# up: --tenants 2\n"),
            ("_common.py", "# up: --tenants 9\n"),
            ("notes.txt", "# up: --tenants 9\n"),
        ] {
            fs::write(folder.join(name), text).unwrap();
        }
        let scripts = by_deployment(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(scripts.keys().collect::<Vec<_>>(), ["", "--tenants 2"]);
        assert_eq!(scripts[""], [folder.join("a.py"), folder.join("b.py")]);
        assert!(by_deployment(&folder).unwrap().is_empty());
    }
}
