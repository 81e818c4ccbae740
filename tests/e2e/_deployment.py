"""The deployment that `cargo xtask test` started for this script: addresses, processes, engine, configurations."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _processes
from _harness import equal, poll
from _http import Answer, over_socket, request

MODEL = "smollm2-135m"

BASE_URLS = os.environ["CLOISTER_BASE_URLS"].split()
"""Of each tenant's proxy."""

STATE = Path(os.environ["CLOISTER_STATE"])

ENGINE_SOCKET = STATE / "run/1/engine/engine.sock"


def pid(name: str) -> int:
    """Process id of the component whose configuration is `<name>.yaml`."""
    found = _processes.with_argument(str(STATE / f"{name}.yaml"))
    equal(len(found), 1, f"processes of {name}")
    return found[0]


def engine_pid() -> int:
    """Process id of the engine: what the enclave started, without the wrappers around it."""
    found = _processes.descendants(pid("enclave-1"))
    assert found, "the enclave has no engine"
    return found[-1]


def chat(base_url: str, text: str, **fields: Any) -> Answer:
    """A chat completion with one message."""
    return request(f"{base_url}/chat/completions", chat_body(text, **fields))


def chat_body(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}


def assert_answered(base_urls: list[str] = BASE_URLS) -> None:
    """Asserts that a request of each tenant is answered: no lease is stuck."""
    for base_url in base_urls:
        answer = chat(base_url, "Are you there?", max_tokens=2).succeeded()
        assert answer["choices"][0]["message"]["content"], answer


# The simulated engine


def running() -> int:
    """Sequences in the engine's batch, as its metrics say."""
    metrics = over_socket(ENGINE_SOCKET, "GET", "/metrics").decode()
    found = re.search(r"^vllm:num_requests_running\S* ([0-9.]+)$", metrics, re.MULTILINE)
    assert found, metrics
    return int(float(found.group(1)))


def set_faults(**faults: Any) -> None:
    """Makes the simulated engine misbehave in exactly these ways."""
    over_socket(ENGINE_SOCKET, "POST", "/simulator/faults", faults)


@contextlib.contextmanager
def faulty(base_url: str, **faults: Any) -> Iterator[None]:
    """The same within a block, for requests to this proxy.

    Its tenant gets the engine first: the proof that an engine is empty uses the engine, and would find the faults.
    """
    assert_answered([base_url])
    set_faults(**faults)
    try:
        yield
    finally:
        # An engine that ended in the block is replaced by one without faults.
        poll("the engine takes faults", _without_faults)


def _without_faults() -> bool:
    try:
        set_faults()
    except OSError:
        return False
    return True


# Programs that a script starts itself


def tenant_command(*arguments: str) -> Any:
    """Runs `cloister tenant` on the tenants of the deployment."""
    program = _processes.program(pid("proxy-1"))
    command = [program, "--output", "json", "tenant", "--dir", str(STATE / "tenants"), *arguments]
    return json.loads(subprocess.run(command, env=_environment(), check=True, capture_output=True, timeout=30).stdout)


@contextlib.contextmanager
def proxy(*options: str) -> Iterator[str]:
    """Another proxy of the first tenant, with options over its configuration; gives the base URL."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as held:
        port = held.getsockname()[1]
    program = _processes.program(pid("proxy-1"))
    # Not by `--config`: there is one process with that argument.
    config = f"--config={STATE / 'proxy-1.yaml'}"
    started = start("proxy-extra", [program, "proxy", config, f"--listen=127.0.0.1:{port}", *options])
    try:
        poll("the proxy listens", lambda: _listens(port) or started.poll() is not None)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        stop(started)


def start(name: str, command: list[str]) -> subprocess.Popen[bytes]:
    """Starts a program that ends with this script, with its output in the deployment's logs."""
    with open(STATE / "logs" / f"{name}.log", "ab") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *command],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stops a program of this script."""
    process.terminate()
    process.wait(timeout=10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _environment() -> dict[str, str]:
    # Variables of Cloister would override the configuration.
    return {name: value for name, value in os.environ.items() if not name.startswith("CLOISTER_")}
