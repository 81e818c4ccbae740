//! Removes whatever there is of a cluster, by the names that only it has: after a clean end, a kill or half a start.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    cluster::{
        LOOK_AGAIN, daemon,
        layout::{BRIDGE, Layout, Node},
        node::GROUPS,
    },
    error::{Context, Result, bail},
    process,
};

/// How long killed processes may take to leave their group.
const LEAVES_WITHIN: Duration = Duration::from_secs(30);

/// All of it. Nothing there is no error.
///
/// # Errors
///
/// Something of it cannot be removed.
pub(super) fn all(layout: &Layout) -> Result<()> {
    daemon::stop_all(layout)?;
    shims(layout);
    for node in Node::all() {
        groups(node)?;
        remove_if_there("/run/netns", &node.namespace(), &["netns", "del"])?;
    }
    // The cables went with the namespaces, the routes with the bridge.
    remove_if_there("/sys/class/net", BRIDGE, &["link", "del"])?;
    mounts(layout)?;
    if layout.root().exists() {
        fs::remove_dir_all(layout.root()).context(layout.root().display())?;
    }
    Ok(())
}

/// What containerd leaves running on purpose, so that pods outlive it: one process for each pod, which names the socket.
fn shims(layout: &Layout) {
    let own = layout.root().display().to_string();
    for pid in processes() {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("containerd-shim") && line.contains(&own) {
            kill(pid);
        }
    }
}

fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It fails only if the process is gone.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Kills every process of the node's pods, and removes their groups.
fn groups(node: Node) -> Result<()> {
    let name = node.namespace();
    let mut tops = vec![Path::new(GROUPS).join(&name)];
    tops.extend(
        fs::read_dir(GROUPS)
            .into_iter()
            .flatten()
            .flatten()
            .map(|tree| tree.path().join(&name)),
    );
    tops.retain(|top| top.is_dir());
    let deadline = Instant::now() + LEAVES_WITHIN;
    for top in &tops {
        loop {
            let groups = below(top);
            let pids: Vec<i32> = groups.iter().flat_map(|group| members(group)).collect();
            if pids.is_empty() {
                break;
            }
            if Instant::now() >= deadline {
                bail!("processes {pids:?} in {} do not end", top.display());
            }
            pids.into_iter().for_each(kill);
            sleep(LOOK_AGAIN);
        }
        // The deepest first: a group with groups in it cannot be removed.
        for group in below(top).iter().rev() {
            fs::remove_dir(group).context(group.display())?;
        }
    }
    Ok(())
}

fn members(group: &Path) -> Vec<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|pid| pid.parse().ok()).collect()
}

/// A group and all groups in it, each after the one that it is in.
fn below(top: &Path) -> Vec<PathBuf> {
    let mut all = vec![top.to_owned()];
    let mut at = 0;
    while let Some(group) = all.get(at).cloned() {
        let entries = fs::read_dir(&group).into_iter().flatten().flatten();
        all.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
        at += 1;
    }
    all
}

fn remove_if_there(folder: &str, name: &str, command: &[&str]) -> Result<()> {
    if !Path::new(folder).join(name).exists() {
        return Ok(());
    }
    process::run(Command::new("ip").args(command).arg(name))
}

/// Unmounts everything in the cluster's folder, the last mounted first.
fn mounts(layout: &Layout) -> Result<()> {
    let text = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    let own = format!("{}/", layout.root().display());
    let points: Vec<&str> = text.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    for point in points.iter().rev().filter(|point| point.starts_with(&own)) {
        process::run(Command::new("umount").arg(point))?;
    }
    Ok(())
}
