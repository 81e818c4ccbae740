"""HTTP as it is, without a client that repairs or hides anything."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _harness import equal

TIMEOUT_SECONDS = 45
"""Longest silence on a connection."""

REQUEST_ID = re.compile(r"req_[0-9a-f]{32}")


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def refused(self, status: int, code: str, param: str | None = None) -> dict[str, Any]:
        """Asserts that this is an error in OpenAI's format, and returns the error object."""
        error = openai_error(self.body)
        equal((self.status, error["code"]), (status, code), f"the refusal {error['message']!r}")
        equal(self.headers.get("content-type"), "application/json", "content-type")
        assert REQUEST_ID.fullmatch(self.headers.get("x-request-id", "")), self.headers
        if param is not None:
            equal(error["param"], param, "param")
        return error

    def succeeded(self) -> Any:
        """Asserts status 200, and returns the JSON."""
        equal(self.status, 200, f"status with {self.body[:500]!r}")
        assert REQUEST_ID.fullmatch(self.headers.get("x-request-id", "")), self.headers
        return self.json()


def openai_error(body: bytes | str) -> dict[str, Any]:
    """The error object of a body, which must have the four fields of OpenAI's format and no others."""
    error = json.loads(body)["error"]
    equal(sorted(error), ["code", "message", "param", "type"], "fields of the error")
    assert error["message"] and error["type"] and error["code"], error
    return error


def request(
    url: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    method: str | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Answer:
    """Sends `body` (bytes as they are, anything else as JSON; none makes it a GET) and reads the whole answer."""
    with sent(url, body, headers, method, timeout_seconds) as response:
        return Answer(response.status, _lower(response), response.read())


@contextlib.contextmanager
def sent(
    url: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    method: str | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Iterator[http.client.HTTPResponse]:
    """The same, with the answer's body not read yet. Leaving the block closes the connection."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_seconds)
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    given = {} if raw is None else {"content-type": "application/json"}
    with contextlib.closing(connection):
        connection.request(method or ("GET" if raw is None else "POST"), parts.path, raw, given | (headers or {}))
        response = connection.getresponse()
        # The response keeps the socket open by itself.
        with contextlib.closing(response):
            yield response


def events(response: http.client.HTTPResponse) -> Iterator[str]:
    """The server-sent events of an answer: the text of each `data:` line, and comments as they are, with their colon.

    A connection that is cut ends the events like one that is closed: it is the content that says whether it is whole.
    """
    with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
        while line := response.readline():
            text = line.decode().rstrip("\n")
            if text.startswith(":"):
                yield text
            elif text.startswith("data: "):
                yield text.removeprefix("data: ")


def over_socket(path: Path, method: str, target: str, body: Any = None, timeout_seconds: float = 10) -> bytes:
    """A request over a unix socket; the answer's status must be 200."""
    connection = _UnixConnection(path, timeout_seconds)
    with contextlib.closing(connection):
        raw = None if body is None else json.dumps(body).encode()
        connection.request(method, target, raw, {"content-type": "application/json"} if raw else {})
        response = connection.getresponse()
        answer = response.read()
        equal(response.status, 200, f"status of {target}")
        return answer


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _lower(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}
