//! One node: a network namespace, a group of processes, containerd, kubelet and kube-proxy.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    cluster::{
        daemon, image,
        layout::{BRIDGE, DNS_SERVICE, HOST, Layout, Node, PODS},
        programs::Built,
        wait_for, write,
    },
    error::{Context, Result},
    process,
};

/// Where the kernel has its groups of processes: hybrid and version 1 have one tree for each resource.
pub(super) const GROUPS: &str = "/sys/fs/cgroup";

/// Starts all nodes and waits until each is ready.
///
/// # Errors
///
/// A namespace or group cannot be made, a program does not start, or a node does not become ready.
pub(super) fn start_all(layout: &Layout, built: &Built) -> Result<()> {
    for node in Node::all() {
        network(node)?;
        groups(node)?;
        files(layout, built, node)?;
        daemons(layout, node)?;
    }
    for node in Node::all() {
        wait_for("containerd answers", || {
            process::output(image::ctr(layout, node).arg("version")).map(|_| true)
        })?;
    }
    image::kubernetes(layout, built)?;
    for node in Node::all() {
        wait_for(&format!("{} is ready", node.name()), || {
            let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
            let mut get = layout.kubectl();
            get.args(["get", "node", &node.name(), "-o", ready]);
            process::output(&mut get).map(|status| status == "True")
        })?;
    }
    Ok(())
}

/// A namespace with one cable to the bridge, and routes to the other nodes' pods.
fn network(node: Node) -> Result<()> {
    let (namespace, cable, own) = (node.namespace(), node.cable(), node.address());
    let (address, pods) = (format!("{own}/24"), node.pods());
    let others: Vec<Node> = Node::all().filter(|other| other.number != node.number).collect();
    let mut commands: Vec<Vec<&str>> = vec![
        vec!["netns", "add", &namespace],
        vec![
            "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &namespace,
        ],
        vec!["link", "set", &cable, "master", BRIDGE, "up"],
        vec!["-n", &namespace, "link", "set", "lo", "up"],
        vec!["-n", &namespace, "addr", "add", &address, "dev", "eth0"],
        vec!["-n", &namespace, "link", "set", "eth0", "up"],
        vec!["-n", &namespace, "route", "add", "default", "via", HOST],
        vec!["route", "add", &pods, "via", &own],
    ];
    let routes: Vec<(String, String)> = others.iter().map(|other| (other.pods(), other.address())).collect();
    for (pods, via) in &routes {
        commands.push(vec!["-n", &namespace, "route", "add", pods, "via", via]);
    }
    for arguments in &commands {
        process::run(Command::new("ip").args(arguments))?;
    }
    process::run(&mut inside(
        node,
        Path::new("sh"),
        ["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"],
    ))
}

/// The group that holds all of the node's pods, in each tree.
fn groups(node: Node) -> Result<()> {
    let trees = fs::read_dir(GROUPS).context(GROUPS)?;
    // With one tree there are no folders of resources, and the group is directly below.
    let mut trees: Vec<PathBuf> = trees.flatten().map(|entry| entry.path()).collect();
    if Path::new(GROUPS).join("cgroup.controllers").exists() {
        trees = vec![PathBuf::from(GROUPS)];
    }
    for tree in trees.iter().filter(|tree| tree.join("cgroup.procs").exists()) {
        let group = tree.join(node.namespace());
        fs::create_dir_all(&group).context(group.display())?;
        // Empty at first, and no process may enter before they are filled.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if tree.ends_with("cpuset") {
                let all = fs::read(tree.join(file)).context(tree.join(file).display())?;
                write(&group.join(file), all)?;
            }
        }
    }
    Ok(())
}

fn files(layout: &Layout, built: &Built, node: Node) -> Result<()> {
    for folder in ["cni", "containerd", "run", "kubelet", "pods"] {
        let path = layout.node(node, folder);
        fs::create_dir_all(&path).context(path.display())?;
    }
    write(
        &layout.node(node, "cni/10-cloister.conflist"),
        cni(layout, node).to_string(),
    )?;
    write(&layout.node(node, "containerd.toml"), containerd(layout, built, node))?;
    write(&layout.node(node, "kubelet.yaml"), kubelet(layout, node).to_string())?;
    // What is not of the cluster has no name in it.
    write(&layout.root().join("resolv.conf"), "nameserver 127.0.0.1\n")
}

fn daemons(layout: &Layout, node: Node) -> Result<()> {
    let name = node.name();
    let path = |below: &str| layout.node(node, below).display().to_string();
    let containerd = vec!["--config".to_owned(), path("containerd.toml")];
    let kubelet = vec![
        format!("--config={}", path("kubelet.yaml")),
        format!("--kubeconfig={}", layout.kubeconfig(&name).display()),
        format!("--root-dir={}", path("kubelet")),
        format!("--cert-dir={}", path("kubelet/pki")),
        format!("--hostname-override={name}"),
        format!("--node-ip={}", node.address()),
    ];
    let proxy = vec![
        format!("--kubeconfig={}", layout.kubeconfig("proxy").display()),
        "--proxy-mode=nftables".to_owned(),
        // A limit of the whole machine, which is not the cluster's to set.
        "--conntrack-max-per-core=0".to_owned(),
        format!("--hostname-override={name}"),
        format!("--cluster-cidr={PODS}"),
        format!("--bind-address={}", node.address()),
        "--metrics-bind-address=127.0.0.1:10249".to_owned(),
    ];
    for (program, path, arguments) in [
        ("containerd", PathBuf::from("containerd"), containerd),
        ("kubelet", layout.program("kubelet"), kubelet),
        ("kube-proxy", layout.program("kube-proxy"), proxy),
    ] {
        let command = inside(node, &path, arguments);
        daemon::start(
            layout,
            &format!("{name}-{program}"),
            Path::new("nsenter"),
            command.get_args(),
        )?;
    }
    Ok(())
}

/// A program in the node's network. Not `ip netns exec`: that hides the groups of processes.
fn inside<I>(node: Node, program: &Path, arguments: I) -> Command
where
    I: IntoIterator,
    I::Item: AsRef<std::ffi::OsStr>,
{
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{}", node.namespace()))
        .arg("--")
        .arg(program)
        .args(arguments);
    command
}

fn cni(layout: &Layout, node: Node) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "cloister",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": layout.node(node, "ipam"),
                    "ranges": [[{"subnet": node.pods()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn containerd(layout: &Layout, built: &Built, node: Node) -> String {
    let path = |below: &str| layout.node(node, below).display().to_string();
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
# A machine of tests may lack the right to set others.
restrict_oom_score_adj = true
sandbox_image = "{pause}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"
"#,
        root = path("containerd"),
        state = path("run"),
        socket = path("run/containerd.sock"),
        pause = image::name_of_kubernetes(built),
        cni = path("cni"),
    )
}

fn kubelet(layout: &Layout, node: Node) -> Value {
    let path = |below: &str| layout.node(node, below);
    let name = node.name();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address(),
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": layout.pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": layout.pki(&format!("{name}.crt")),
        "tlsPrivateKeyFile": layout.pki(&format!("{name}.key")),
        "containerRuntimeEndpoint": format!("unix://{}", path("run/containerd.sock").display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", node.namespace()),
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        // The disk is the machine's, and its fullness not the test's.
        "evictionHard": {},
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "resolvConf": layout.root().join("resolv.conf"),
        "podLogsDir": path("pods"),
        "volumePluginDir": path("kubelet/volume-plugins"),
    })
}
