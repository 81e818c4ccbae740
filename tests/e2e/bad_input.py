# up: --engine simulator --tenants 2
"""What goes wrong: requests, keys, engine, clients, components. Each is a clear error in OpenAI's format with a code,
tells nothing of anyone's content and leaves nothing behind: the next request is answered.

The tests of the last part end components and start them again, so they come last.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _processes
from _deployment import (
    BASE_URLS,
    MODEL,
    STATE,
    assert_answered,
    chat,
    chat_body,
    engine_pid,
    faulty,
    pid,
    proxy,
    running,
    set_faults,
    start,
    stop,
    tenant_command,
)
from _harness import equal, main, poll, test
from _http import Answer, events, openai_error, request, sent

FIRST, SECOND = BASE_URLS
CHAT = f"{FIRST}/chat/completions"

MARKER = "xylophone-7c1f"
"""Stands for content: in no error."""

FOREVER = 1e6
"""Slowdown at which no answer ends while a test runs."""

BODY_LIMIT = 8 * 1024 * 1024 - 1024

TRIES = "--retries-attempts=1"
"""For proxies that shall report the first failure."""


def assert_silent(text: str) -> None:
    """Asserts that nothing of anyone's prompt is in it."""
    assert MARKER not in text, text


def refused(answer: Answer, status: int, code: str, param: str | None = None) -> None:
    error = answer.refused(status, code, param)
    assert_silent(json.dumps(error))


@contextlib.contextmanager
def open_stream(base_url: str) -> Iterator[Iterator[str]]:
    """The events of a streamed chat completion, of which the first has come."""
    with sent(f"{base_url}/chat/completions", chat_body(MARKER, stream=True)) as response:
        equal(response.status, 200, "status")
        arriving = events(response)
        first = next(arriving)
        assert not first.startswith(":"), first
        yield arriving


@contextlib.contextmanager
def posted(head: str, body: bytes, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    """A connection on which a chat completion was sent, and nothing of the answer read."""
    parts = urllib.parse.urlsplit(CHAT)
    with contextlib.closing(socket.socket()) as raw:
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(30)
        raw.connect((parts.hostname, parts.port))
        start_line = f"POST {parts.path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        raw.sendall(f"{start_line}content-type: application/json\r\n{head}\r\n\r\n".encode() + body)
        yield raw


def posted_chat(receive_buffer: int | None = None, **fields: Any) -> contextlib.AbstractContextManager[socket.socket]:
    body = json.dumps(chat_body(MARKER, **fields)).encode()
    return posted(f"content-length: {len(body)}", body, receive_buffer)


def assert_cut(arriving: Iterator[str], codes: set[str]) -> None:
    """Asserts that a stream ends with an error event, and without the mark of a whole answer."""
    rest = [event for event in arriving if not event.startswith(":")]
    assert rest and "[DONE]" not in rest, rest[-3:]
    error = openai_error(rest[-1])
    assert error["code"] in codes, error
    assert_silent(rest[-1])


# Requests


@test()
def malformed_bodies_are_refused_without_being_quoted() -> None:
    bodies = [
        b"",
        b"{",
        b"null",
        b"[]",
        f'"{MARKER}"'.encode(),
        f'{{"model": "{MODEL}", {MARKER}}}'.encode(),
        f'{{"model": "{MODEL}", "messages": "{MARKER}'.encode(),
        f'{{"model": "{MODEL}"}} {MARKER}'.encode(),
        b'{"model": "' + b"\xff\xfe" + MARKER.encode() + b'"}',
        f'{{"model": "{MODEL}", "model": "{MARKER}"}}'.encode(),
        f'{{"model": ["{MARKER}"]}}'.encode(),
    ]
    for body in bodies:
        refused(request(CHAT, body), 400, "invalid_request")


@test()
def wrong_parameters_are_refused_by_name() -> None:
    for fields, code, param in [
        ({"id_slot": MARKER}, "unknown_parameter", "id_slot"),
        ({"cache_salt": MARKER}, "unknown_parameter", "cache_salt"),
        ({"temperature": MARKER}, "invalid_type", "temperature"),
        ({"temperature": -1}, "invalid_value", "temperature"),
        ({"n": 1000}, "invalid_value", "n"),
        ({"messages": MARKER}, "invalid_type", "messages"),
        ({"messages": []}, "invalid_value", "messages"),
    ]:
        refused(chat_with(fields), 400, code, param)
    refused(request(CHAT, {"model": MODEL}), 400, "missing_required_parameter", "messages")
    refused(request(CHAT, chat_body(MARKER) | {"model": MARKER}), 404, "model_not_found", "model")
    refused(request(CHAT, {"messages": []}), 400, "invalid_request", "model")
    assert_answered([FIRST])


def chat_with(fields: dict[str, Any]) -> Answer:
    return request(CHAT, chat_body(MARKER) | fields)


@test()
def a_repeated_name_anywhere_is_refused() -> None:
    message = f'{{"role": "user", "content": "a", "content": "{MARKER}"}}'
    refused(request(CHAT, f'{{"model": "{MODEL}", "messages": [{message}]}}'.encode()), 400, "duplicate_parameter")


@test()
def deep_nesting_is_refused() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    refused(request(CHAT, b'{"model": "%s", "messages": %s}' % (MODEL.encode(), deep)), 400, "invalid_type")
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        schema = {"type": "array", "items": schema}
    answer = chat_with({"response_format": {"type": "json_schema", "json_schema": {"name": "deep", "schema": schema}}})
    error = answer.refused(413, "request_too_large")
    assert error["param"].startswith("response_format.json_schema.schema"), error
    assert_answered([FIRST])


@test()
def a_body_over_the_limit_is_refused_and_one_at_the_limit_is_answered() -> None:
    # By what is announced, before any of it is sent.
    with posted(f"content-length: {BODY_LIMIT + 1}", b"") as raw:
        assert b" 413 " in raw.makefile("rb").readline()
    # By what comes, when nothing is announced.
    with posted("transfer-encoding: chunked", b"") as raw:
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        with contextlib.suppress(ConnectionError):
            # The proxy may close before the last of it is sent.
            for _ in range(BODY_LIMIT // 0x10000 + 1):
                raw.sendall(chunk)
        assert b" 413 " in raw.makefile("rb").readline()
    over = b" " * (BODY_LIMIT + 1)
    request(CHAT, over).refused(413, "request_too_large")
    body = json.dumps(chat_body("hello", max_tokens=2)).encode()
    request(CHAT, body + b" " * (BODY_LIMIT - len(body))).succeeded()


@test()
def other_media_types_paths_methods_and_hosts_are_refused() -> None:
    body = json.dumps(chat_body(MARKER)).encode()
    for headers in [{"content-type": "text/plain"}, {"content-type": ""}, {"content-encoding": "gzip"}]:
        refused(request(CHAT, body, headers), 415, "unsupported_media_type")
    refused(request(CHAT), 405, "method_not_allowed")
    refused(request(f"{FIRST}/models", b"{}"), 405, "method_not_allowed")
    for path in ["/files", "/chat", "/chat/completions/", "/audio/speech"]:
        refused(request(FIRST + path, body), 404, "not_found")
    refused(request(f"{FIRST}/models/{MARKER}"), 404, "model_not_found", "model")
    # A page in a browser that reaches the proxy by a name of its own.
    refused(request(CHAT, body, {"host": "example.com"}), 403, "forbidden_host")


# Keys and credentials


@test()
def api_keys_are_checked_when_they_are_configured() -> None:
    keys = secret_file("api-keys", "sk-right\n")
    with proxy(f"--api-keys={keys}") as base_url:
        for headers in [{}, {"authorization": "Bearer sk-wrong"}, {"authorization": "Basic sk-right"}]:
            refused(request(f"{base_url}/chat/completions", chat_body(MARKER), headers), 401, "invalid_api_key")
        refused(request(f"{base_url}/models"), 401, "invalid_api_key")
        right = {"authorization": "Bearer sk-right"}
        request(f"{base_url}/chat/completions", chat_body("hello"), right).succeeded()


@test()
def unusable_credentials_are_named() -> None:
    with proxy(TRIES, *member("elsewhere", "--cluster", "elsewhere")) as base_url:
        refused(chat(base_url, MARKER), 401, "credential_unusable")
    # It begins a minute before now, so it lives for a second.
    with proxy(TRIES, *member("expired", "--cluster", "local", "--life", "61")) as base_url:
        answer = poll("the credential is over", lambda: not_ok(chat(base_url, MARKER)))
        refused(answer, 401, "credential_unusable")
    # A right credential, with another member's key.
    key = STATE / "tenants/tenant-2/members/default/member.key"
    with proxy(TRIES, f"--member-key={key}") as base_url:
        refused(chat(base_url, MARKER), 401, "credential_unusable")
    assert_answered()


def member(name: str, *options: str) -> list[str]:
    """Issues a credential to a new member of the first tenant; gives the options of a proxy for it."""
    tenant_command("issue", "tenant-1", "--models", model_digest(), "--member", name, *options)
    folder = STATE / "tenants/tenant-1/members" / name
    return [f"--credential={folder / 'credential'}", f"--member-key={folder / 'member.key'}"]


def not_ok(answer: Answer) -> Answer | None:
    return None if answer.status == 200 else answer


@test()
def outer_tokens_open_their_own_tenant_only() -> None:
    wrong = secret_file("wrong-token", "0" * 64)
    with proxy(TRIES, f"--outer-token={wrong}") as base_url:
        refused(chat(base_url, MARKER), 401, "outer_token_refused")
    with proxy(TRIES, f"--outer-token={STATE / 'tenants/tenant-2/token'}") as base_url:
        refused(chat(base_url, MARKER), 403, "tenant_refused")
    assert_answered()


@test()
def nothing_is_sealed_to_what_the_policy_does_not_accept() -> None:
    policy = (STATE / "policy.yaml").read_text()
    # The key and what is indented below it, wherever it stands.
    without_danger = re.sub(r"^danger:\n(?: .*\n)*", "", policy, flags=re.MULTILINE)
    assert without_danger != policy, policy
    path = secret_file("policy-without-danger.yaml", without_danger)
    with proxy(TRIES, f"--policy={path}") as base_url:
        refused(chat(base_url, MARKER), 503, "attestation_refused")


def secret_file(name: str, text: str) -> Path:
    path = STATE / name
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def model_digest() -> str:
    lines = (STATE / "proxy-1.yaml").read_text().splitlines()
    [line] = [line for line in lines if line.strip().startswith(f"{MODEL}:")]
    return line.split(":")[1].strip().strip("'\"")


# The engine


@test()
def errors_of_the_engine_do_not_quote_the_prompt() -> None:
    with faulty(FIRST, echoError=True):
        refused(chat(FIRST, MARKER), 500, "engine_error")
        refused(request(CHAT, chat_body(MARKER, stream=True)), 500, "engine_error")
    assert_answered()


@test()
def an_engine_that_breaks_off_is_an_error_not_a_short_answer() -> None:
    with faulty(FIRST, dieAfterTokens=3):
        answer = chat(FIRST, MARKER)
        assert answer.status >= 500, answer
        assert_silent(openai_error(answer.body)["message"])
        with open_stream(FIRST) as arriving:
            assert_cut(arriving, ENGINE_CODES)
    assert_answered()


ENGINE_CODES = {"engine_failed", "engine_incomplete", "engine_error", "interrupted", "request_interrupted"}


@test()
def an_engine_that_ends_in_an_answer_is_replaced() -> None:
    before = engine_pid()
    with faulty(FIRST, exitAfterTokens=3), open_stream(FIRST) as arriving:
        assert_cut(arriving, ENGINE_CODES)
        poll("the engine is gone", lambda: not _processes.alive(before))
    assert_answered()
    assert engine_pid() != before


@test()
def a_killed_engine_is_replaced_and_the_next_request_answered() -> None:
    before = engine_pid()
    _processes.kill(before)
    assert_answered([SECOND, FIRST])
    assert engine_pid() != before


@test()
def a_slow_engine_is_waited_for() -> None:
    with faulty(FIRST, slow=4.0), open_stream(FIRST) as arriving:
        equal(list(arriving)[-1], "[DONE]")


# Clients


@test()
def a_client_that_leaves_in_an_answer_ends_it_in_the_engine() -> None:
    for base_url in BASE_URLS:
        with faulty(base_url):
            with open_stream(base_url) as arriving:
                next(arriving)
                set_faults(slow=FOREVER)
                equal(running(), 1, "sequences of an answer that does not end by itself")
            poll("the engine is idle", lambda: running() == 0)
    assert_answered()


@test()
def a_client_that_leaves_before_the_first_token_ends_it_too() -> None:
    with faulty(FIRST, slow=FOREVER):
        for streams in (True, False):
            with posted_chat(stream=streams):
                poll("the engine has the request", lambda: running() == 1)
            poll("the engine is idle", lambda: running() == 0)
    # Here the engine does not even take the request.
    with faulty(FIRST, hang=True), contextlib.suppress(TimeoutError):
        request(CHAT, chat_body(MARKER), timeout_seconds=1)
        raise AssertionError("an answer of an engine that hangs")
    assert_answered()


@test()
def a_reader_that_stops_holds_up_nobody_else() -> None:
    # As small a buffer as the system allows, so that the answer does not fit in.
    with posted_chat(receive_buffer=1, stream=True, n=8) as raw:
        head = raw.recv(64)
        assert b" 200 " in head, head
        assert_answered([SECOND, FIRST])
        equal(running(), 0, "sequences of answers that nobody reads")
        # What was sealed meanwhile is still there for who reads late.
        rest = raw.makefile("rb").read()
        assert b"data: [DONE]" in rest, rest[-300:]


@test()
def a_stream_that_waits_says_so() -> None:
    with contextlib.ExitStack() as waits, faulty(FIRST):
        with open_stream(FIRST):
            set_faults(slow=FOREVER)
            # The other tenant has the engine: headers come with the first comment.
            response = waits.enter_context(sent(f"{SECOND}/chat/completions", chat_body("after you", stream=True)))
            equal(response.status, 200, "status")
            arriving = events(response)
            equal(next(arriving), ": queued")
            set_faults()
        seen = [event for event in arriving if not event.startswith(":")]
        equal(seen[-1], "[DONE]")
    assert_answered()


# Components


@test()
def a_killed_scheduler_is_an_error_until_it_is_back() -> None:
    with faulty(FIRST):
        with open_stream(FIRST) as arriving:
            set_faults(slow=FOREVER)
            replaced = Restart("scheduler")
            assert_cut(arriving, {"answer_truncated", "upstream_failed", "endpoint_unreachable"})
        poll("the engine is idle", lambda: running() == 0)
        refused(chat(FIRST, MARKER), 503, "endpoint_unreachable")
        request(f"{FIRST.removesuffix('/v1')}/readyz").refused(503, "no_enclave")
        replaced.again()
    assert_recovers()


@test()
def a_killed_enclave_is_an_error_until_it_is_back() -> None:
    engine = engine_pid()
    with open_stream(FIRST) as arriving:
        set_faults(slow=FOREVER)
        replaced = Restart("enclave-1")
        assert_cut(arriving, {"answer_truncated", "upstream_failed", "enclave_unavailable"})
    # No enclave, no engine: it holds somebody's plaintext.
    poll("the engine is gone", lambda: not _processes.alive(engine))
    answer = chat(FIRST, MARKER)
    equal(answer.status, 503, "status")
    assert_silent(openai_error(answer.body)["message"])
    replaced.again()
    assert_recovers()


@test()
def a_full_queue_says_when_to_come_back() -> None:
    # One waiting request per tenant.
    with edited("scheduler", "- tenantRef: ", "- maxQueued: 1\n  tenantRef: "):
        Restart("scheduler").again()
        assert_recovers()
    with contextlib.ExitStack() as held, proxy(TRIES) as impatient, faulty(SECOND):
        held.enter_context(open_stream(SECOND))
        set_faults(slow=FOREVER)
        # One of these waits, whichever comes first; the others are told to come back.
        held.enter_context(posted_chat())
        answer = poll("the queue is full", lambda: shed(impatient))
        refused(answer, 429, "rate_limit_exceeded")
        for name in ("retry-after", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"):
            assert int(answer.headers[name]) >= 0, answer.headers
        equal(answer.headers["x-should-retry"], "true", "advice to clients")
    assert_answered()


def shed(base_url: str) -> Answer | None:
    with contextlib.suppress(TimeoutError):
        return request(f"{base_url}/chat/completions", chat_body(MARKER), timeout_seconds=2)
    return None


@test()
def an_engine_that_hangs_is_an_error() -> None:
    timeouts = "  firstByteTimeoutMillis: 3000\n  idleTimeoutMillis: 3000\n"
    with edited("enclave-1", "engine:\n", f"engine:\n{timeouts}"):
        Restart("enclave-1").again()
        assert_recovers()
    with faulty(FIRST, hang=True):
        refused(chat(FIRST, MARKER), 504, "engine_timeout")
    with faulty(FIRST):
        with open_stream(FIRST) as arriving:
            set_faults(slow=FOREVER)
            assert_cut(arriving, {"engine_timeout"})
        poll("the engine is idle", lambda: running() == 0)
    assert_answered()


class Restart:
    """A component that is killed, and started again."""

    started: list[subprocess.Popen[bytes]] = []

    def __init__(self, name: str) -> None:
        self.name = name
        victim = pid(name)
        self.command = [_processes.program(victim), "--config", str(STATE / f"{name}.yaml")]
        _processes.kill(victim)

    def again(self) -> None:
        Restart.started.append(start(self.name, self.command))


@contextlib.contextmanager
def edited(name: str, old: str, new: str) -> Iterator[None]:
    """A configuration that is another within the block, for a component that is started in it."""
    path = STATE / f"{name}.yaml"
    text = path.read_text()
    assert old in text, text
    path.write_text(text.replace(old, new))
    try:
        yield
    finally:
        path.write_text(text)


def assert_recovers() -> None:
    """Asserts that requests are answered again, and from then on; until then each has a clear error."""
    for base_url in BASE_URLS:
        poll("a request is answered", lambda base_url=base_url: is_answered(base_url))
    assert_answered()


def is_answered(base_url: str) -> bool:
    answer = chat(base_url, MARKER)
    if answer.status != 200:
        assert_silent(openai_error(answer.body)["message"])
    return answer.status == 200



try:
    main()
finally:
    for process in Restart.started:
        if process.poll() is None:
            stop(process)
