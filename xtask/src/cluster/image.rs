//! Images without a registry: a tar as `docker save` writes it, imported into each node.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::{
    cluster::{
        layout::{Layout, Node},
        programs::Built,
        write,
    },
    error::{Context, Result, bail},
    process,
};

/// Where containerd looks for the images of pods.
const NAMESPACE: &str = "k8s.io";

/// The image of [`kubernetes`].
pub(super) fn name_of_kubernetes(built: &Built) -> String {
    format!("cloister.dev/kubernetes:{}", built.version())
}

/// The image that pauses in each pod, and that the cluster's DNS runs in: the one program under two names.
///
/// # Errors
///
/// The image cannot be made or imported.
pub(super) fn kubernetes(layout: &Layout, built: &Built) -> Result<()> {
    let folder = layout.root().join("image");
    let root = folder.join("root");
    fs::create_dir_all(&root).context(root.display())?;
    fs::copy(built.kubernetes(), root.join("kubernetes")).context(built.kubernetes().display())?;
    for name in ["pause", "coredns"] {
        symlink("kubernetes", root.join(name)).context(root.join(name).display())?;
    }
    let tar = make(&folder, &name_of_kubernetes(built), &["/pause"])?;
    import(layout, &tar)?;
    fs::remove_dir_all(&folder).context(folder.display())
}

/// Makes `folder/image.tar` of one layer, which is `folder/root`.
fn make(folder: &Path, name: &str, entrypoint: &[&str]) -> Result<PathBuf> {
    let layer = folder.join("layer.tar");
    let mut tar = Command::new("tar");
    // The same files give the same image.
    tar.args([
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "-cf",
    ])
    .arg(&layer)
    .arg("-C")
    .arg(folder.join("root"))
    .arg(".");
    process::run(&mut tar)?;
    let sum = process::output(Command::new("sha256sum").arg(&layer))?;
    let digest = format!("sha256:{}", sum.split(' ').next().unwrap_or_default());
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    write(&folder.join("config.json"), config.to_string())?;
    write(&folder.join("manifest.json"), manifest.to_string())?;
    let image = folder.join("image.tar");
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(&image).arg("-C").arg(folder);
    process::run(tar.args(["manifest.json", "config.json", "layer.tar"]))?;
    Ok(image)
}

/// Imports a tar into every node.
///
/// # Errors
///
/// It is no image, or a node does not take it.
pub(super) fn import(layout: &Layout, tar: &Path) -> Result<()> {
    if !tar.is_file() {
        bail!(
            "{} is not there: name a file that `docker save` or a build wrote",
            tar.display()
        );
    }
    for node in Node::all() {
        process::output(ctr(layout, node).args(["images", "import"]).arg(tar))?;
    }
    Ok(())
}

/// containerd's client for a node.
pub(super) fn ctr(layout: &Layout, node: Node) -> Command {
    let mut command = Command::new("ctr");
    command
        .arg("--address")
        .arg(layout.node(node, "run/containerd.sock"))
        .args(["--namespace", NAMESPACE]);
    command
}
