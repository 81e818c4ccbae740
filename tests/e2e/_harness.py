"""Runs the tests of one script and prints what `cargo xtask test` counts.

A test is a function marked with `@test`; tests run in the order in which they are defined. Each has a time limit, so
that a script ends whatever hangs. The last line of a script's output is `N passed, N failed`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

LIMIT_SECONDS = 60
"""For one test that names no other limit."""

POLL_SECONDS = 0.05
"""Between two looks at something that changes by itself."""

T = TypeVar("T")
Body = Callable[[], None]


@dataclass(frozen=True)
class Row:
    """A row of the compatibility table that a test backs."""

    endpoint: str
    feature: str
    note: str


@dataclass(frozen=True)
class Test:
    """One test."""

    name: str
    body: Body
    limit_seconds: int
    backs: tuple[Row, ...]


_tests: list[Test] = []


def test(limit_seconds: int = LIMIT_SECONDS, backs: tuple[Row, ...] = ()) -> Callable[[Body], Body]:
    """Marks a test. `backs` are the rows of the compatibility table that hold as long as it passes."""

    def mark(body: Body) -> Body:
        _tests.append(Test(body.__name__, body, limit_seconds, backs))
        return body

    return mark


def poll(what: str, look: Callable[[], T], limit_seconds: float = 30) -> T:
    """Looks until the answer is true, and returns it; fails with `what` when it never is."""
    deadline = time.monotonic() + limit_seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what}: not within {limit_seconds} s")
        time.sleep(POLL_SECONDS)


def equal(seen: Any, wanted: Any, what: str = "") -> None:
    """Fails, and shows both, when they differ."""
    if seen != wanted:
        raise AssertionError(f"{what or 'value'}: {seen!r} instead of {wanted!r}")


def main(after: Callable[[list[Test], list[Test]], list[str]] = lambda _passed, _failed: []) -> None:
    """Runs all tests, or those whose names are given as arguments, and exits.

    `after` gets what passed and what failed when all tests ran; each problem that it returns is one more failure.
    """
    wanted = sys.argv[1:]
    chosen = [one for one in _tests if not wanted or one.name in wanted]
    passed: list[Test] = []
    failed: list[Test] = []
    for one in chosen:
        started = time.monotonic()
        try:
            with _limited(one.limit_seconds):
                one.body()
        except Exception:
            failed.append(one)
            print(f"FAILED {one.name} ({time.monotonic() - started:.1f} s)\n{traceback.format_exc()}", flush=True)
        else:
            passed.append(one)
            print(f"ok {one.name} ({time.monotonic() - started:.1f} s)", flush=True)
    problems = [] if wanted else after(passed, failed)
    for problem in problems:
        print(f"FAILED {problem}")
    failures = len(failed) + len(problems)
    print(f"{len(passed)} passed, {failures} failed")
    sys.exit(1 if failures else 0)


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def too_late(_signal: int, _frame: Any) -> None:
        raise TimeoutError(f"the test takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
