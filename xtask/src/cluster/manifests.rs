//! What runs in the cluster before anything of the product does: its DNS.

use serde_json::{Value, json};

use crate::{
    cluster::{
        image,
        layout::{DNS_SERVICE, Layout},
        programs, wait_for, write,
    },
    error::Result,
    process,
};

/// Installs CoreDNS and waits until it answers for the cluster.
///
/// # Errors
///
/// The API server refuses it, or it does not become ready.
pub(super) fn dns(layout: &Layout) -> Result<()> {
    let image = image::name_of_kubernetes(&programs::built()?);
    let path = layout.root().join("dns.json");
    write(&path, manifest(&image).to_string())?;
    process::output(layout.kubectl().args(["apply", "--server-side", "-f"]).arg(&path))?;
    wait_for("the cluster's DNS is ready", || {
        let mut get = layout.kubectl();
        get.args([
            "-n",
            "kube-system",
            "get",
            "deployment",
            "coredns",
            "-o",
            "jsonpath={.status.readyReplicas}",
        ]);
        process::output(&mut get).map(|ready| ready == "1")
    })
}

fn manifest(image: &str) -> Value {
    let meta = json!({"name": "coredns", "namespace": "kube-system"});
    let labels = json!({"k8s-app": "kube-dns"});
    let read = json!(["list", "watch"]);
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "system:coredns"}, "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": read},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        ]},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"Corefile": COREFILE}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels}, "spec": {
            "selector": labels,
            "clusterIP": DNS_SERVICE,
            "ports": [
                {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "targetPort": 5353, "protocol": "TCP"},
            ],
        }},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod(image)},
        }},
    ]})
}

/// Names of the cluster and no others: it has no way out.
const COREFILE: &str = "\
.:5353 {
    errors
    health :8080
    ready :8181
    kubernetes cluster.local in-addr.arpa {
        pods verified
    }
    cache 5
}
";

fn pod(image: &str) -> Value {
    json!({
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "containers": [{
            "name": "coredns",
            "image": image,
            "imagePullPolicy": "Never",
            "command": ["/coredns", "-conf", "/etc/coredns/Corefile"],
            "ports": [{"containerPort": 5353, "protocol": "UDP"}, {"containerPort": 5353, "protocol": "TCP"}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
            "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "failureThreshold": 6},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "runAsNonRoot": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": true}],
        }],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    })
}
