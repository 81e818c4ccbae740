//! Names and places of the cluster.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cluster::programs::Built,
    error::{Context, Result, bail},
    workspace::cache,
};

/// The nodes; their numbers are part of their names and addresses.
pub(super) const NODES: [u8; 2] = [1, 2];
/// The bridge between the nodes; the control plane listens on its address.
pub(super) const BRIDGE: &str = "cloister0";
/// Where the control plane listens: an address that only this machine and the nodes' namespaces reach.
pub(super) const HOST: &str = "10.245.0.1";
/// Port of the API server.
pub(super) const API_PORT: u16 = 6443;
/// Ports of etcd on loopback.
pub(super) const ETCD_PORTS: [u16; 2] = [12379, 12380];
/// Addresses of Services.
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// The API server's own Service: the first address.
pub(super) const API_SERVICE: &str = "10.96.0.1";
/// The Service of the cluster's DNS.
pub(super) const DNS_SERVICE: &str = "10.96.0.10";
/// Addresses of pods; each node has a /24 of it.
pub(super) const PODS: &str = "10.244.0.0/16";

/// Folder of one cluster.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// One node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) number: u8,
}

// === impl Layout ===

impl Layout {
    /// In the cache: checkouts share one cluster, since a machine has room for one.
    ///
    /// # Errors
    ///
    /// There is no cache.
    pub(super) fn of_this_machine() -> Result<Self> {
        Ok(Self {
            root: cache()?.join("cluster"),
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn programs(&self) -> PathBuf {
        self.root.join("bin")
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.programs().join(name)
    }

    pub(super) fn pki(&self, file: &str) -> PathBuf {
        self.root.join("pki").join(file)
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Process ids of what was started.
    pub(super) fn running(&self) -> PathBuf {
        self.root.join("running")
    }

    pub(super) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.root.join("pki").join(format!("{user}.kubeconfig"))
    }

    pub(super) fn node(&self, node: Node, below: &str) -> PathBuf {
        self.root.join(node.name()).join(below)
    }

    /// The folders, and each program under its name.
    ///
    /// # Errors
    ///
    /// They cannot be made.
    pub(super) fn make(&self, built: &Built) -> Result<()> {
        for folder in [self.programs(), self.pki(""), self.logs(), self.running()] {
            fs::create_dir_all(&folder).context(folder.display())?;
        }
        for (name, target) in built.links() {
            let link = self.program(name);
            symlink(target, &link).context(link.display())?;
        }
        Ok(())
    }

    /// # Errors
    ///
    /// There is no cluster.
    pub(super) fn check_up(&self) -> Result<()> {
        if self.kubeconfig("admin").is_file() {
            return Ok(());
        }
        bail!("there is no cluster here: `cargo xtask cluster up` makes one")
    }

    /// kubectl with all rights.
    pub(super) fn kubectl(&self) -> Command {
        let mut command = Command::new(self.program("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig("admin"));
        command
    }
}

// === impl Node ===

impl Node {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        NODES.into_iter().map(|number| Self { number })
    }

    pub(super) fn name(self) -> String {
        format!("node{}", self.number)
    }

    /// Network namespace, and the group of processes, which must not be taken for anyone else's.
    pub(super) fn namespace(self) -> String {
        format!("cloister-node{}", self.number)
    }

    /// The end of its cable that is on the bridge.
    pub(super) fn cable(self) -> String {
        format!("cloister0n{}", self.number)
    }

    pub(super) fn address(self) -> String {
        format!("10.245.0.1{}", self.number)
    }

    pub(super) fn pods(self) -> String {
        // As the controller manager gives them out, in the order in which nodes come: see `node::start_all`.
        format!("10.244.{}.0/24", self.number)
    }
}
