//! `cargo xtask deps`: layers, licences and sources of everything that is linked.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    args::Arguments,
    error::{Context, Result, bail},
    installed::{self, Tool},
    process,
    workspace::{cargo, metadata, root},
};

const CARGO_DENY: Tool = Tool {
    package: "cargo-deny",
    version: "0.20.2",
};

/// How long the download of the advisory database may take before it counts as out of reach.
const ADVISORIES_LIMIT: Duration = Duration::from_secs(60);

/// This tool is built before anything else: it stays small.
const XTASK_LIMIT: usize = 40;

/// A package that must never be linked with others, directly or not. A name with `*` at its end stands for all that begin so.
struct Wall {
    package: &'static str,
    never: &'static [&'static str],
    reason: &'static str,
}

const KUBERNETES: &[&str] = &["kube", "kube-*", "k8s-openapi", "cloister-crds"];
const INPUT_OUTPUT: &[&str] = &[
    "tokio",
    "mio",
    "hyper",
    "axum",
    "tonic",
    "rustls",
    "reqwest",
    "tracing-subscriber",
    "kube",
    "kube-*",
];

const WALLS: &[Wall] = &[
    Wall {
        package: "cloister-enclave",
        never: KUBERNETES,
        reason: "what runs in the trusted execution environment knows no Kubernetes",
    },
    Wall {
        package: "cloister-enclave",
        never: &[
            "cloister-client",
            "cloister-scheduler",
            "cloister-scheduler-core",
            "cloister-operator",
        ],
        reason: "the enclave shares no code with those it need not trust",
    },
    Wall {
        package: "cloister-scheduler",
        never: &["cloister-client", "cloister-enclave-*"],
        reason: "the scheduler cannot open or read a request",
    },
    Wall {
        package: "cloister-client",
        never: &["cloister-enclave-*"],
        reason: "a relying party makes no evidence",
    },
    Wall {
        package: "cloister-session",
        never: &["cloister-enclave-*"],
        reason: "evidence is made for its tests only",
    },
    Wall {
        package: "cloister-cli",
        never: &["kube", "kube-*", "k8s-openapi"],
        reason: "the command line of tenants knows no Kubernetes",
    },
    Wall {
        package: "xtask",
        never: &["kube", "kube-*", "k8s-openapi", "tokio", "cloister-*"],
        reason: "this tool is built before all others",
    },
    Wall {
        package: "cloister-attestation",
        never: INPUT_OUTPUT,
        reason: "appraisal is pure: bytes and a time in, a verdict out",
    },
    Wall {
        package: "cloister-session",
        never: INPUT_OUTPUT,
        reason: "the protocol does no input or output",
    },
    Wall {
        package: "cloister-scheduler-core",
        never: INPUT_OUTPUT,
        reason: "scheduling decisions are pure",
    },
    Wall {
        package: "cloister-enclave-lease",
        never: INPUT_OUTPUT,
        reason: "the lease machine is pure",
    },
    Wall {
        package: "cloister-enclave-openai",
        never: INPUT_OUTPUT,
        reason: "the allow-list is pure",
    },
];

/// The package with the SIMULATED TEE, and the feature that it is there with.
const ATTESTER: &str = "cloister-enclave-attester";
const SIMULATED: &str = "simulated";

/// Packages that nothing may depend on, tests included.
const NEVER_IMPORTED: &[&str] = &["cloister-tests", "cloister-cli", "xtask"];

/// Runs all checks.
///
/// # Errors
///
/// The first check that fails, or a tool that cannot be installed.
pub(crate) fn main(arguments: Arguments) -> Result<()> {
    arguments.finish()?;
    process::stage("layers", layers)?;
    let deny = installed::program(CARGO_DENY)?;
    let deny = || {
        let mut command = Command::new(&deny);
        command.current_dir(root()).stdin(Stdio::null());
        command
    };
    process::stage("bans, licences, sources", || {
        process::run_on_stderr(
            deny()
                .args(["--workspace", "--locked", "check", "--hide-inclusion-graph"])
                .args(["--allow", "unused-wrapper", "bans", "licenses", "sources"]),
        )
    })?;
    if within(deny().args(["fetch", "db"]), ADVISORIES_LIMIT)? {
        process::stage("advisories", || {
            process::run_on_stderr(deny().args(["--workspace", "--locked", "check", "--disable-fetch", "advisories"]))
        })
    } else {
        eprintln!("==> advisories: NOT CHECKED, the advisory database cannot be reached from here");
        Ok(())
    }
}

fn layers() -> Result<()> {
    let members = members(&metadata(false)?)?;
    let mut broken = Vec::new();
    for wall in WALLS {
        let linked = linked(wall.package)?;
        for name in breaches(wall, &linked) {
            broken.push(format!("{} links {name}, but {}", wall.package, wall.reason));
        }
        if wall.package == "xtask" && linked.len() >= XTASK_LIMIT {
            broken.push(format!(
                "xtask has {} dependencies, under {XTASK_LIMIT} are allowed",
                linked.len()
            ));
        }
    }
    if let Some(features) = features_without_defaults("cloister-enclave", ATTESTER)?
        && features.contains(SIMULATED)
    {
        broken.push(format!(
            "cloister-enclave without its default features turns on {SIMULATED} of {ATTESTER}, but images of a release hold no \
             SIMULATED TEE"
        ));
    }
    for (member, dependencies) in &members {
        for name in NEVER_IMPORTED.iter().filter(|name| dependencies.contains(**name)) {
            broken.push(format!("{member} depends on {name}, which nothing may import"));
        }
    }
    if broken.is_empty() {
        Ok(())
    } else {
        bail!("\n  {}", broken.join("\n  "))
    }
}

/// Which of the linked packages the wall keeps out. A package is not kept out of itself.
fn breaches<'a>(wall: &Wall, linked: &'a BTreeSet<String>) -> Vec<&'a str> {
    let matches = |name: &str, pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    linked
        .iter()
        .map(String::as_str)
        .filter(|name| wall.never.iter().any(|pattern| matches(name, pattern)))
        .collect()
}

/// Features of `dependency` when `package` is built alone and without its default features.
fn features_without_defaults(package: &str, dependency: &str) -> Result<Option<BTreeSet<String>>> {
    let tree = process::output(
        cargo()
            .args(["tree", "--locked", "--package", package, "--no-default-features"])
            .args(["--edges", "normal,build", "--prefix", "none", "--format", "{p}|{f}"]),
    )?;
    Ok(features(&tree, dependency))
}

/// Features of `dependency` in a tree of `{p}|{f}`.
fn features(tree: &str, dependency: &str) -> Option<BTreeSet<String>> {
    tree.lines().find_map(|line| {
        let (named, features) = line.split_once('|')?;
        (named.split_whitespace().next()? == dependency).then(|| {
            // A package that was shown before has a mark behind its features.
            let features = features.split_whitespace().next().unwrap_or_default();
            features.split(',').map(str::to_owned).collect()
        })
    })
}

/// Names of everything linked into or run while building `package` when it is built alone, without itself.
fn linked(package: &str) -> Result<BTreeSet<String>> {
    // Not `cargo metadata`: its features are those of the whole workspace, so it names what this package never links.
    let tree = process::output(
        cargo()
            .args(["tree", "--locked", "--package", package, "--edges", "normal,build"])
            .args(["--prefix", "none", "--format", "{p}"]),
    )?;
    Ok(tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != package)
        .map(str::to_owned)
        .collect())
}

/// Members of the workspace with the names of their direct dependencies of every kind.
fn members(metadata: &Value) -> Result<Vec<(String, BTreeSet<String>)>> {
    let name = |value: &Value| value.get("name").and_then(Value::as_str).map(str::to_owned);
    let packages = metadata
        .get("packages")
        .and_then(Value::as_array)
        .context_none("packages")?;
    packages
        .iter()
        .map(|package| {
            let dependencies = package
                .get("dependencies")
                .and_then(Value::as_array)
                .context_none("dependencies")?;
            let names = dependencies.iter().filter_map(name).collect();
            Ok((name(package).context_none("name")?, names))
        })
        .collect()
}

/// Runs `command` for at most `limit`; false if it fails or takes longer.
fn within(command: &mut Command, limit: Duration) -> Result<bool> {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cargo-deny cannot be started")?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().context("cargo-deny")? {
            return Ok(status.success());
        }
        if Instant::now() >= deadline {
            child.kill().context("cargo-deny")?;
            child.wait().context("cargo-deny")?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Turns a missing field of cargo's output into an error.
trait ContextNone<T> {
    fn context_none(self, field: &str) -> Result<T>;
}

impl<T> ContextNone<T> for Option<T> {
    fn context_none(self, field: &str) -> Result<T> {
        match self {
            Some(value) => Ok(value),
            None => bail!("cargo metadata has no {field}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_keeps_out_names_and_prefixes() {
        let wall = Wall {
            package: "a",
            never: &["kube", "kube-*"],
            reason: "",
        };
        let linked = ["kube", "kube-core", "kubelet", "serde"].map(str::to_owned).into();
        assert_eq!(breaches(&wall, &linked), ["kube", "kube-core"]);
        assert!(breaches(&wall, &["serde".to_owned()].into()).is_empty());
    }

    #[test]
    fn a_release_of_the_enclave_holds_no_simulated_tee() {
        let tree = "a v1|\ncloister-enclave-attester v0.1.0 (/x)|default,simulated (*)\n";
        let features = features(tree, ATTESTER).unwrap();
        assert!(features.contains(SIMULATED) && features.len() == 2);
        assert!(super::features("a v1|simulated\n", ATTESTER).is_none());
        let real = features_without_defaults("cloister-enclave", ATTESTER)
            .unwrap()
            .unwrap();
        assert!(!real.contains(SIMULATED));
    }

    #[test]
    fn members_have_dependencies_of_every_kind() {
        let metadata = serde_json::json!({"packages": [
            {"name": "a", "dependencies": [{"name": "b", "kind": null}, {"name": "c", "kind": "dev"}]},
        ]});
        let members = members(&metadata).unwrap();
        assert_eq!(
            members,
            [("a".to_owned(), BTreeSet::from(["b".to_owned(), "c".to_owned()]))]
        );
        assert!(super::members(&serde_json::json!({})).is_err());
    }

    #[test]
    fn every_walled_package_exists() {
        let members = members(&metadata(false).unwrap()).unwrap();
        for package in WALLS
            .iter()
            .map(|wall| wall.package)
            .chain(NEVER_IMPORTED.iter().copied())
        {
            assert!(
                members.iter().any(|(name, _)| name == package),
                "{package} is no member of the workspace"
            );
        }
    }

    #[test]
    fn a_slow_command_is_ended() {
        assert!(within(&mut Command::new("true"), Duration::from_secs(60)).unwrap());
        assert!(!within(&mut Command::new("false"), Duration::from_secs(60)).unwrap());
        assert!(!within(Command::new("sleep").arg("600"), Duration::ZERO).unwrap());
    }
}
