//! Every program of the cluster in one, built once for each set of sources.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    error::{Context, Result, bail},
    process,
    workspace::{cache, root},
};

/// Names that the one program answers to.
const NAMES: &[&str] = &[
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
    "etcd",
    "coredns",
    "pause",
    "cluster-pki",
];
const SOURCES: &str = "tests/cluster";
const HELM: &str = "helm.sh/helm/v3/cmd/helm@v3.22.0";

/// What was built.
#[derive(Debug)]
pub(super) struct Built {
    folder: PathBuf,
}

// === impl Built ===

impl Built {
    /// The program that is all of Kubernetes.
    pub(super) fn kubernetes(&self) -> PathBuf {
        self.folder.join("kubernetes")
    }

    /// Version of the sources: part of image names, so that a node never runs an older image.
    pub(super) fn version(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default();
        name.to_string_lossy().replace("kubernetes-", "")
    }

    /// Each name with the file behind it.
    pub(super) fn links(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let helm = ("helm", self.folder.join("helm"));
        NAMES.iter().map(|name| (*name, self.kubernetes())).chain([helm])
    }
}

/// Builds what the cache has not got: minutes, once.
///
/// # Errors
///
/// Go is too old, a module cannot be fetched, or does not build.
pub(super) fn built() -> Result<Built> {
    let sources = root().join(SOURCES);
    let folder = cache()?.join(format!("kubernetes-{}", fingerprint(&sources)?));
    let built = Built { folder };
    if built.kubernetes().is_file() && built.folder.join("helm").is_file() {
        return Ok(built);
    }
    fs::create_dir_all(&built.folder).context(built.folder.display())?;
    eprintln!(
        "building Kubernetes and helm into {} (10 minutes, once)",
        built.folder.display()
    );
    kubernetes(&sources, &built.kubernetes())?;
    let mut helm = go(&sources);
    helm.args(["install", "-trimpath", HELM]).env("GOBIN", &built.folder);
    process::run_on_stderr(&mut helm)?;
    Ok(built)
}

fn kubernetes(sources: &Path, program: &Path) -> Result<()> {
    let version = process::output(go(sources).args(["list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes"]))?;
    let version = version.trim();
    let mut parts = version.trim_start_matches('v').split('.');
    let (Some(major), Some(minor)) = (parts.next(), parts.next()) else {
        bail!("{SOURCES}/go.mod names no version of k8s.io/kubernetes that could be read: {version:?}");
    };
    let set = |name: &str, value: &str| format!("-X k8s.io/component-base/version.{name}={value}");
    let flags = [
        "-s -w".to_owned(),
        set("gitVersion", version),
        set("gitMajor", major),
        set("gitMinor", minor),
    ];
    // Under another name until it is complete.
    let partial = program.with_extension("partial");
    let mut build = go(sources);
    build
        .args([
            "build",
            "-trimpath",
            "-mod=readonly",
            "-ldflags",
            &flags.join(" "),
            "-o",
        ])
        .arg(&partial)
        .arg(".");
    process::run_on_stderr(&mut build)?;
    fs::rename(&partial, program).context(program.display())
}

fn go(sources: &Path) -> Command {
    let mut command = process::tied("go");
    // Static programs: their image holds nothing else.
    command.current_dir(sources).env("CGO_ENABLED", "0");
    command
}

/// Of all sources and of the checksums of everything below them.
fn fingerprint(sources: &Path) -> Result<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(sources)
        .context(sources.display())?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()
        .context(sources.display())?;
    files.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".go") || name == "go.mod" || name == "go.sum"
    });
    files.sort();
    let sums = process::output(Command::new("sha256sum").args(&files))?;
    let sums: String = sums.lines().filter_map(|line| line.split(' ').next()).collect();
    let sum = process::output(Command::new("sh").args(["-c", "printf %s \"$1\" | sha256sum", "sh", &sums]))?;
    match sum.get(..12) {
        Some(start) => Ok(start.to_owned()),
        None => bail!("sha256sum printed {sum:?}"),
    }
}
