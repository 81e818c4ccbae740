# up: none
"""`cargo xtask up` as its user sees it: what it prints, what can be pasted, how it ends, and what it says if it cannot.

`CLOISTER_XTASK` is the program behind `cargo xtask`; the programs of the deployment are built already.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _processes
from _harness import equal, main, poll, test
from _http import over_socket, request, sent

XTASK = os.environ["CLOISTER_XTASK"]

STOP_SECONDS = 5
"""What `up` promises between a signal and its end."""

READY_SECONDS = 120

scratch = Path(tempfile.mkdtemp(prefix="cloister-up-test-"))


class Up:
    """A running `cargo xtask up`."""

    def __init__(self, *options: str, path: str | None = None) -> None:
        self.stdout, self.stderr = scratch / "stdout", scratch / "stderr"
        command = [XTASK, "up", "--built", *options]
        environment = os.environ | ({"PATH": path} if path else {})
        with open(self.stdout, "wb") as stdout, open(self.stderr, "wb") as stderr:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
            )

    def lines(self) -> list[str]:
        """What it printed on standard output so far."""
        return self.stdout.read_text().splitlines()

    def errors(self) -> str:
        return self.stderr.read_text()

    def announced(self, tenants: int) -> list[str]:
        """Waits for everything that it prints on standard output, which the python line ends."""

        def all_lines() -> list[str] | None:
            assert self.process.poll() is None, self.errors()
            lines = self.lines()
            return lines if len(lines) == tenants + 2 else None

        return poll("everything is announced", all_lines, READY_SECONDS)

    def everything(self) -> list[int]:
        """Process ids of all that it started."""
        return _processes.descendants(self.process.pid)

    def ends(self, status: int, everything: list[int]) -> None:
        """Asserts that it ends with this status, soon, and that nothing of `everything` is left then."""
        started = time.monotonic()
        equal(self.process.wait(timeout=30), status, f"exit status, with {self.errors()!r}")
        took = time.monotonic() - started
        equal([pid for pid in everything if _processes.alive(pid)], [], "processes that are left")
        assert took <= STOP_SECONDS, f"it took {took:.1f} s to stop"

    def fails(self) -> str:
        """Asserts that it ends by itself without success and without a word on standard output; gives its errors."""
        status = self.process.wait(timeout=30)
        equal((status, self.lines()), (1, []), f"status and standard output, with {self.errors()!r}")
        return self.errors()


@contextlib.contextmanager
def up(*options: str, path: str | None = None) -> Iterator[Up]:
    """`cargo xtask up` with these options; it is over when the block is left."""
    started = Up(*options, path=path)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.terminate()
            started.process.wait(timeout=30)


def simulator(port: int, *more: str) -> list[str]:
    """Options of a deployment that is kept from one test to the next."""
    return ["--engine", "simulator", "--port", str(port), "--state", str(scratch / "state"), *more]


def free_ports() -> int:
    """A port that is free, and the next one too."""
    for _ in range(100):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            first = held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            held.enter_context(socket.create_server(("127.0.0.1", first + 1)))
            return first
    raise AssertionError("no two ports in a row are free")


def shell(line: str) -> str:
    """Runs a line as if it were pasted, by somebody whose environment has nothing of the test's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CLOISTER_"))}
    command = ["sh", "-c", line]
    pasted = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    equal(pasted.returncode, 0, f"status of {line!r} with {pasted.stderr!r}")
    return pasted.stdout


@test(limit_seconds=240)
def what_it_prints_can_be_pasted_and_ctrl_c_stops_all_of_it() -> None:
    port = free_ports()
    with up("--tenants", "2", "--port", str(port)) as running:
        first, second, curl, python = running.announced(2)
        equal(first, f"ready http://127.0.0.1:{port}/v1", "first line")
        equal(second, f"ready http://127.0.0.1:{port + 1}/v1", "second line")
        assert curl.startswith("curl ") and python.startswith("PYTHONPATH="), (curl, python)
        answer = json.loads(shell(curl))
        assert answer["choices"][0]["message"]["content"], answer
        assert shell(python).strip(), "the python line prints nothing"
        asked = {"model": answer["model"], "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        request(f"http://127.0.0.1:{port + 1}/v1/chat/completions", asked).succeeded()
        assert "SIMULATED" in running.errors(), running.errors()
        everything = running.everything()
        # Scheduler, enclave with its engine, two proxies.
        assert len(everything) >= 5, everything
        running.process.send_signal(signal.SIGINT)
        running.ends(0, everything)
        equal(len(running.lines()), 4, "lines on standard output")


@test()
def a_deployment_comes_back_with_its_state_and_sigterm_stops_it_in_an_answer() -> None:
    port = free_ports()
    for _ in range(2):
        with up(*simulator(port)) as running:
            running.announced(1)
            key = (scratch / "state/tenants/tenant-1/root.key").read_bytes()
            everything = running.everything()
            with long_stream(port):
                running.process.send_signal(signal.SIGTERM)
                running.ends(0, everything)
        equal((scratch / "state/tenants/tenant-1/root.key").read_bytes(), key, "who the tenant is")


@contextlib.contextmanager
def long_stream(port: int) -> Iterator[Any]:
    """A streamed answer that does not end by itself while a test runs, after its first bytes."""
    url = f"http://127.0.0.1:{port}/v1"
    model = request(f"{url}/models").succeeded()["data"][0]["id"]
    asked = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with sent(f"{url}/chat/completions", asked) as response:
        assert response.readline(), "no first event"
        over_socket(scratch / "state/run/1/engine/engine.sock", "POST", "/simulator/faults", {"slow": 1e6})
        yield response


@test()
def what_is_in_use_is_named() -> None:
    port = free_ports()
    taken = port + 1
    with up(*simulator(taken)) as running:
        running.announced(1)
        # As the first tenant's port, and as the second's.
        for options in (["--port", str(taken)], ["--port", str(port), "--tenants", "2"]):
            errors = Up("--engine", "simulator", *options).fails()
            assert f"127.0.0.1:{taken}" in errors and "--port" in errors, errors
        errors = Up(*simulator(free_ports())).fails()
        assert str(scratch / "state") in errors and "in use" in errors, errors


@test()
def a_program_that_dies_is_reported_and_ends_everything() -> None:
    for name in ("enclave-1", "scheduler", "proxy-1"):
        with up(*simulator(free_ports())) as running:
            running.announced(1)
            everything = running.everything()
            [victim] = _processes.with_argument(str(scratch / "state" / f"{name}.yaml"))
            os.kill(victim, signal.SIGKILL)
            running.ends(1, everything)
            errors = running.errors()
            assert f"{name} ended (signal: 9" in errors and f"logs/{name}.log" in errors, errors


@test()
def nothing_outlives_it_however_it_ends() -> None:
    # Before it is ready.
    with up(*simulator(free_ports())) as running:
        config = str(scratch / "state/enclave-1.yaml")
        poll("the enclave is started", lambda: _processes.with_argument(config) or running.process.poll() is not None)
        everything = running.everything()
        running.process.send_signal(signal.SIGTERM)
        running.ends(0, everything)
        equal(running.lines(), [], "lines on standard output")
    # Without a chance to stop anything.
    with up(*simulator(free_ports())) as running:
        running.announced(1)
        everything = running.everything()
        _processes.kill(running.process.pid)
        poll("everything is gone", lambda: not any(_processes.alive(pid) for pid in everything), STOP_SECONDS)


@test()
def a_missing_tool_is_named_with_the_command_that_installs_it() -> None:
    tools = scratch / "tools"
    tools.mkdir()
    for name in ("python3", "cc"):
        (tools / name).symlink_to(os.path.realpath(sys.executable) if name == "python3" else shutil.which(name) or "")
    with up("--engine", "simulator", path=str(tools)) as running:
        errors = running.fails()
    for tool in ("unshare", "setpriv"):
        assert tool in errors, errors
    assert "apt-get install util-linux" in errors, errors


try:
    main()
finally:
    shutil.rmtree(scratch)
