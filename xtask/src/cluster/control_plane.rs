//! Certificates, etcd, API server, controller manager and scheduler.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::json;

use crate::{
    cluster::{
        daemon,
        layout::{API_PORT, API_SERVICE, BRIDGE, ETCD_PORTS, HOST, Layout, Node, PODS, SERVICES},
        wait_for, write,
    },
    error::{Context, Result, bail},
    process,
};

/// Users with a kubeconfig of their own, besides the nodes.
const USERS: [&str; 4] = ["admin", "controller-manager", "scheduler", "proxy"];

/// Starts all of it and waits until the API server is ready.
///
/// # Errors
///
/// A program is missing, an address is taken, or the API server does not become ready.
pub(super) fn start(layout: &Layout) -> Result<()> {
    certificates(layout)?;
    bridge()?;
    daemon::start(layout, "etcd", &layout.program("etcd"), etcd(layout))?;
    daemon::start(
        layout,
        "kube-apiserver",
        &layout.program("kube-apiserver"),
        api_server(layout),
    )?;
    wait_for("the API server is ready", || {
        process::output(layout.kubectl().args(["get", "--raw", "/readyz"])).map(|answer| answer == "ok")
    })?;
    let program = layout.program("kube-controller-manager");
    daemon::start(layout, "kube-controller-manager", &program, controller_manager(layout))?;
    let own = own_kubeconfig(layout, "scheduler");
    let arguments = own.into_iter().chain(["--leader-elect=false".to_owned()]);
    daemon::start(layout, "kube-scheduler", &layout.program("kube-scheduler"), arguments)
}

/// The bridge is there first: the API server listens on its address.
fn bridge() -> Result<()> {
    let address = format!("{HOST}/24");
    for arguments in [
        &["link", "add", BRIDGE, "type", "bridge"][..],
        &["addr", "add", &address, "dev", BRIDGE],
        &["link", "set", BRIDGE, "up"],
    ] {
        process::run(Command::new("ip").args(arguments))?;
    }
    // Between the nodes' pods and this machine; the kernel forgets it at the next start.
    write("/proc/sys/net/ipv4/ip_forward".as_ref(), "1")
}

/// A throw-away authority, and a certificate of it for each user and server.
fn certificates(layout: &Layout) -> Result<()> {
    let leaf = |name: &str, user: &str, groups: &[&str], hosts: &[&str]| json!({"name": name, "commonName": user, "organizations": groups, "hosts": hosts});
    let kubernetes = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let hosts: Vec<&str> = [HOST, API_SERVICE].into_iter().chain(kubernetes).collect();
    let mut leaves = vec![
        leaf("apiserver", "kube-apiserver", &[], &hosts),
        leaf("apiserver-kubelet", "kube-apiserver-kubelet", &["system:masters"], &[]),
        leaf("front-proxy", "front-proxy", &[], &[]),
        leaf("admin", "admin", &["system:masters"], &[]),
    ];
    for user in ["controller-manager", "scheduler", "proxy"] {
        leaves.push(leaf(user, &format!("system:kube-{user}"), &[], &[]));
    }
    for node in Node::all() {
        let (name, address) = (node.name(), node.address());
        leaves.push(leaf(
            &name,
            &format!("system:node:{name}"),
            &["system:nodes"],
            &[&name, &address],
        ));
    }
    let mut child = Command::new(layout.program("cluster-pki"))
        .arg(layout.pki(""))
        .stdin(Stdio::piped())
        .spawn()
        .context("cluster-pki cannot be started")?;
    if let Some(mut input) = child.stdin.take() {
        let list = serde_json::Value::from(leaves).to_string();
        input.write_all(list.as_bytes()).context("cluster-pki")?;
    }
    let status = child.wait().context("cluster-pki")?;
    if !status.success() {
        bail!("cluster-pki failed ({status})");
    }
    let nodes = Node::all().map(Node::name);
    for user in USERS.iter().map(|user| (*user).to_owned()).chain(nodes) {
        write(&layout.kubeconfig(&user), kubeconfig(layout, &user).to_string())?;
    }
    Ok(())
}

fn kubeconfig(layout: &Layout, user: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cloister", "cluster": {
            "server": format!("https://{HOST}:{API_PORT}"),
            "certificate-authority": layout.pki("ca.crt"),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate": layout.pki(&format!("{user}.crt")),
            "client-key": layout.pki(&format!("{user}.key")),
        }}],
        "contexts": [{"name": "cloister", "context": {"cluster": "cloister", "user": user}}],
        "current-context": "cloister",
    })
}

fn etcd(layout: &Layout) -> Vec<String> {
    let [clients, peers] = ETCD_PORTS.map(|port| format!("http://127.0.0.1:{port}"));
    vec![
        format!("--data-dir={}", layout.root().join("etcd").display()),
        // A test cluster that loses its machine is made anew.
        "--unsafe-no-fsync".to_owned(),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
    ]
}

fn api_server(layout: &Layout) -> Vec<String> {
    let pki = |file: &str| layout.pki(file).display().to_string();
    vec![
        format!("--bind-address={HOST}"),
        format!("--advertise-address={HOST}"),
        format!("--secure-port={API_PORT}"),
        format!("--etcd-servers=http://127.0.0.1:{}", ETCD_PORTS[0]),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", pki("service-accounts.key")),
        format!("--service-account-signing-key-file={}", pki("service-accounts.key")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        format!("--kubelet-client-certificate={}", pki("apiserver-kubelet.crt")),
        format!("--kubelet-client-key={}", pki("apiserver-kubelet.key")),
        // The nodes' names are known to nobody.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        // It runs outside the nodes, where no Service answers: webhooks and extensions are called by the pods' addresses.
        "--enable-aggregator-routing=true".to_owned(),
        format!("--requestheader-client-ca-file={}", pki("ca.crt")),
        "--requestheader-allowed-names=front-proxy".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy.key")),
    ]
}

fn controller_manager(layout: &Layout) -> Vec<String> {
    let pki = |file: &str| layout.pki(file).display().to_string();
    let mut arguments = own_kubeconfig(layout, "controller-manager");
    arguments.extend([
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials".to_owned(),
        format!("--service-account-private-key-file={}", pki("service-accounts.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        // Each node's range is part of its layout, not given out.
        "--allocate-node-cidrs=false".to_owned(),
        format!("--cluster-cidr={PODS}"),
    ]);
    arguments
}

fn own_kubeconfig(layout: &Layout, user: &str) -> Vec<String> {
    let path = layout.kubeconfig(user);
    let mut arguments = vec!["--bind-address=127.0.0.1".to_owned()];
    for option in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        arguments.push(format!("--{option}={}", path.display()));
    }
    arguments
}
