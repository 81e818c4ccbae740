//! `cargo xtask cluster`: a real Kubernetes of two nodes on this machine, from Go modules and Debian's containerd.
//!
//! Everything of it is under one folder, in two network namespaces behind one bridge, and in two groups of processes, so that
//! [`teardown`] finds all of it by name after any kind of end. Nothing else of the machine is touched but one kernel switch
//! (forwarding between interfaces), which is left on.

mod control_plane;
mod daemon;
mod image;
mod layout;
mod manifests;
mod node;
mod programs;
mod teardown;

use std::{fs, path::Path, thread::sleep, time::Duration, time::Instant};

use self::layout::Layout;
use crate::{
    args::Arguments,
    error::{Context, Error, Result, bail},
    process::{self, stage},
    tools::{self, Tool},
};

/// Far above what a busy machine of two processors needs.
const READY_WITHIN: Duration = Duration::from_secs(180);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

const TOOLS: &[Tool] = &[
    Tool {
        name: "go (1.25 or newer)",
        package: "golang-go",
        used_for: "builds Kubernetes",
        probe: &["go", "version"],
    },
    Tool {
        name: "containerd and runc",
        package: "containerd runc",
        used_for: "runs the pods",
        probe: &["sh", "-c", "command -v containerd runc ctr"],
    },
    Tool {
        name: "CNI plug-ins in /usr/lib/cni",
        package: "containernetworking-plugins",
        used_for: "the pods' network",
        probe: &["test", "-x", "/usr/lib/cni/bridge"],
    },
    Tool {
        name: "ip",
        package: "iproute2",
        used_for: "network namespaces of the nodes",
        probe: &["ip", "-V"],
    },
    Tool {
        name: "nft, iptables and conntrack",
        package: "nftables iptables conntrack",
        used_for: "Services",
        probe: &["sh", "-c", "command -v nft iptables conntrack"],
    },
    Tool {
        name: "nsenter and setsid",
        package: "util-linux",
        used_for: "starts the nodes in their namespaces",
        probe: &["sh", "-c", "command -v nsenter setsid"],
    },
];

/// `up`, `down`, `load` and `env`.
///
/// # Errors
///
/// See each.
pub(crate) fn main(mut arguments: Arguments) -> Result<()> {
    let task = arguments.subcommand();
    let images = match task.as_deref() {
        Some("load") => {
            let mut images = Vec::new();
            while let Some(image) = arguments.subcommand() {
                images.push(image);
            }
            images
        }
        _ => Vec::new(),
    };
    arguments.finish()?;
    let layout = Layout::of_this_machine()?;
    match task.as_deref() {
        Some("up") => up(&layout),
        Some("down") => down(&layout),
        Some("load") => load(&layout, &images),
        Some("env") => env(&layout),
        _ => Err(Error::usage("cargo xtask cluster up, down, load FILE... or env")),
    }
}

/// Brings the cluster up, from whatever an earlier one left behind.
fn up(layout: &Layout) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the cluster makes network namespaces and groups of processes: run it as root, or use a cluster of your own"
        );
    }
    if cfg!(not(target_os = "linux")) {
        bail!("the cluster runs on Linux only");
    }
    tools::require(TOOLS)?;
    let built = stage("Kubernetes from Go modules", programs::built)?;
    stage("what an earlier cluster left", || teardown::all(layout))?;
    let started = (|| {
        layout.make(&built)?;
        stage("control plane", || control_plane::start(layout))?;
        stage("nodes", || node::start_all(layout, &built))?;
        stage("DNS of the cluster", || manifests::dns(layout))
    })();
    if let Err(error) = started {
        // Its logs stay: `down` removes them.
        return Err(Error::new(format!(
            "{error}\nthe logs are in {}; `cargo xtask cluster down` removes what is there",
            layout.logs().display()
        )));
    }
    println!("ready {}", layout.kubeconfig("admin").display());
    eprintln!("eval \"$(cargo xtask cluster env)\" sets KUBECONFIG and PATH");
    Ok(())
}

/// Removes the cluster and its folder. Without a cluster it does nothing.
fn down(layout: &Layout) -> Result<()> {
    stage("the cluster", || teardown::all(layout))
}

/// Imports images, each a tar as `docker save` writes them, into both nodes.
fn load(layout: &Layout, files: &[String]) -> Result<()> {
    layout.check_up()?;
    if files.is_empty() {
        return Err(Error::usage("which images? cargo xtask cluster load FILE.tar..."));
    }
    for file in files {
        stage(file, || image::import(layout, Path::new(file)))?;
    }
    Ok(())
}

/// Prints what a shell needs.
fn env(layout: &Layout) -> Result<()> {
    layout.check_up()?;
    println!("export KUBECONFIG='{}'", layout.kubeconfig("admin").display());
    println!("export PATH='{}':\"$PATH\"", layout.programs().display());
    Ok(())
}

/// Looks again and again until `look` says yes.
///
/// # Errors
///
/// It does not within [`READY_WITHIN`]; the error ends with what `look` said last.
fn wait_for(what: &str, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let found = look();
        if matches!(found, Ok(true)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let last = found.err().map(|error| format!(": {error}")).unwrap_or_default();
            bail!("{what}: not within {}{last}", process::seconds(READY_WITHIN));
        }
        sleep(LOOK_AGAIN);
    }
}

/// Writes a file of the cluster's own folder.
fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).context(path.display())
}
