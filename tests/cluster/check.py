#!/usr/bin/env python3
"""The cluster of `cargo xtask cluster`: up twice from a dirty state, DNS, images, pods on both nodes, and down.

Run as root: `python3 tests/cluster/check.py`. Standard library only. Its last line is `N passed, N failed`.
"""

import json
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODES = ["node1", "node2"]
DNS = "10.96.0.10"
LIMIT = 120


def xtask(*arguments):
    command = ["cargo", "xtask", "cluster", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def environment():
    values = dict(os.environ)
    script = xtask("env") + "env -0"
    text = subprocess.run(["sh", "-c", script], check=True, stdout=subprocess.PIPE, env=values).stdout
    return dict(item.split(b"=", 1) for item in text.split(b"\0") if item)


def kubectl(*arguments, given=None):
    run = subprocess.run(["kubectl", *arguments], input=given, stdout=subprocess.PIPE, env=environment(), text=True)
    assert run.returncode == 0, f"kubectl {' '.join(arguments)} failed"
    return run.stdout


def until(what, look):
    deadline = time.monotonic() + LIMIT
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {LIMIT} s"
        time.sleep(0.2)
    return found


def processes(word):
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if entry.name.isdigit() and word in line and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def state():
    return pathlib.Path(xtask("env").split("'")[1]).parents[1]


def ask(name, node):
    """The addresses that the cluster's DNS answers with, asked from the network of a node."""
    program = (
        "import socket,sys;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.settimeout(2);"
        f"s.sendto(bytes.fromhex(sys.argv[1]),('{DNS}',53));print(s.recv(512).hex())"
    )
    number = random.randrange(1 << 16)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    query = struct.pack(">HHHHHH", number, 0x100, 1, 0, 0, 0) + labels + struct.pack(">HH", 1, 1)
    command = ["nsenter", f"--net=/run/netns/cloister-{node}", sys.executable, "-c", program, query.hex()]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if run.returncode:
        return None
    answer = bytes.fromhex(run.stdout)
    assert struct.unpack(">H", answer[:2])[0] == number
    code, count = answer[3] & 15, struct.unpack(">H", answer[6:8])[0]
    addresses, at = [], len(query)
    for _ in range(count):
        # The name is a pointer or labels; then type, class, time to live and length.
        while answer[at] and answer[at] < 0xC0:
            at += answer[at] + 1
        at += 2 if answer[at] >= 0xC0 else 1
        length = struct.unpack(">H", answer[at + 8 : at + 10])[0]
        addresses.append(socket.inet_ntoa(answer[at + 10 : at + 10 + length]))
        at += 10 + length
    return code, addresses


def up_from_a_dirty_state():
    """Half of it killed, the rest left as it is: the next `up` clears all of it away."""
    xtask("up")
    before = kubectl("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
    own = str(state())
    for word in [f"{own}/bin/kube-apiserver", f"{own}/node1/kubelet.yaml", f"{own}/node2/containerd.toml"]:
        victims = processes(word)
        assert victims, f"no process of {word}"
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
    xtask("up")
    after = kubectl("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
    assert before != after, "the old cluster is still there"
    ready = kubectl("get", "nodes", "-o", "jsonpath={range .items[*]}{.status.conditions[?(@.type==\"Ready\")].status} {end}")
    assert ready.split() == ["True", "True"], ready


def names_of_the_cluster():
    """Asked from both nodes: one of them reaches the pod over the bridge."""
    for node in NODES:
        found = until("DNS", lambda: ask("kubernetes.default.svc.cluster.local", node))
        assert found == (0, ["10.96.0.1"]), found
        assert ask("nowhere.default.svc.cluster.local", node)[0] == 3, "a name that is none"


def image(folder, name):
    """An image of one static program, which prints what it is told and stays."""
    program = pathlib.Path(folder, "root")
    program.mkdir()
    subprocess.run(["cp", state() / "bin/pause", program / "pause"], check=True)
    layer = pathlib.Path(folder, "layer.tar")
    subprocess.run(["tar", "-cf", layer, "-C", program, "."], check=True)
    digest = subprocess.run(["sha256sum", layer], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[0]
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    pathlib.Path(folder, "config.json").write_text(json.dumps(config))
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    pathlib.Path(folder, "manifest.json").write_text(json.dumps(manifest))
    tar = pathlib.Path(folder, "image.tar")
    subprocess.run(["tar", "-cf", tar, "-C", folder, "manifest.json", "config.json", "layer.tar"], check=True)
    return tar


def pod(name, node, image_name):
    container = {"name": "only", "image": image_name, "imagePullPolicy": "Never"}
    spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def images_run_on_both_nodes():
    name = "cloister.dev/check:1"
    with tempfile.TemporaryDirectory() as folder:
        xtask("load", str(image(folder, name)))
    for node in NODES:
        kubectl("apply", "-f", "-", given=json.dumps(pod(f"on-{node}", node, name)))
    for node in NODES:
        phase = ["get", "pod", f"on-{node}", "-o", "jsonpath={.status.phase} {.status.podIP}"]
        found = until(f"a pod on {node}", lambda: (text := kubectl(*phase)).startswith("Running") and text)
        assert found.split()[1].startswith(f"10.244.{node[-1]}."), found
        # Logs go through the API server to the kubelet in the node's namespace.
        kubectl("logs", f"on-{node}")


def an_image_that_was_not_loaded_does_not_run():
    kubectl("apply", "-f", "-", given=json.dumps(pod("absent", "node1", "cloister.dev/absent:1")))
    reason = ["get", "pod", "absent", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}"]
    until("a refusal", lambda: kubectl(*reason) == "ErrImageNeverPull")


def down_leaves_nothing():
    own = str(state())
    xtask("down")
    xtask("down")
    assert not pathlib.Path(own).exists()
    assert not processes(f"{own}/"), processes(f"{own}/")
    assert not pathlib.Path("/sys/class/net/cloister0").exists()
    assert not list(pathlib.Path("/run/netns").glob("cloister-*"))
    assert not list(pathlib.Path("/sys/fs/cgroup").glob("**/cloister-node*"))
    assert own not in pathlib.Path("/proc/self/mounts").read_text()
    routes = subprocess.run(["ip", "route"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert "10.244." not in routes and "10.245." not in routes, routes


def main():
    checks = [
        up_from_a_dirty_state,
        names_of_the_cluster,
        images_run_on_both_nodes,
        an_image_that_was_not_loaded_does_not_run,
        down_leaves_nothing,
    ]
    failed = 0
    for check in checks:
        started = time.monotonic()
        try:
            check()
            print(f"ok {check.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
        except (AssertionError, subprocess.CalledProcessError) as error:
            failed += 1
            print(f"FAILED {check.__name__}: {error}", flush=True)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
