"""Processes of this machine, by `/proc`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from _harness import poll


def alive(pid: int) -> bool:
    """Whether it runs; one that only waits to be collected by its parent does not."""
    try:
        return _stat(pid)[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int) -> list[int]:
    """Everything that `pid` started, directly or not, and that runs; parents come before their children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = _stat(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state not in "ZX":
                children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    open_ones = [pid]
    while open_ones:
        born = children.get(open_ones.pop(0), [])
        found.extend(born)
        open_ones.extend(born)
    return found


def with_argument(argument: str) -> list[int]:
    """Running processes that were started with exactly this argument."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if argument.encode() in arguments and alive(int(entry.name)):
            found.append(int(entry.name))
    return found


def program(pid: int) -> str:
    """Path of the program that a process runs."""
    # A program that was built anew since then has this mark.
    return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")


def kill(pid: int) -> None:
    """Ends a process the hard way, and waits until it is gone."""
    os.kill(pid, signal.SIGKILL)
    poll(f"process {pid} is gone", lambda: not alive(pid))


def _stat(pid: int) -> tuple[str, int]:
    # The name, in brackets, may hold spaces and brackets.
    rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return rest[0], int(rest[1])
