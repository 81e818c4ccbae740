# up: --tenants 2
"""The official `openai` client against the real engine and model.

The model is small and often wrong, so what is asserted is structure: types, schemas, counts, and which content belongs
to whom. Tests back rows of the compatibility table, `compatibility.json`; `CLOISTER_RECORD_COMPATIBILITY=1` writes it
anew, and without it a row that no passed test backs is a failure, as is a passed test whose row is not there.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import openai
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk

from _deployment import BASE_URLS, ENGINE_SOCKET, MODEL
from _harness import Row, Test, equal, main, poll, test
from _http import REQUEST_ID, over_socket, request

TIMEOUT_SECONDS = 45

client = OpenAI(base_url=BASE_URLS[0], api_key="none", max_retries=0, timeout=TIMEOUT_SECONDS)

CHAT = "POST /v1/chat/completions"
RESPONSES = "POST /v1/responses"
COMPLETIONS = "POST /v1/completions"
EMBEDDINGS = "POST /v1/embeddings"
MODELS = "GET /v1/models"

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]

PLACE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "people": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["city", "people"],
    "additionalProperties": False,
}

TOOLS: Any = [
    {"type": "function", "function": {"name": "find_place", "description": "Finds a place.", "parameters": PLACE}},
    {"type": "function", "function": {"name": "stop", "parameters": {"type": "object", "properties": {}}}},
]
RESPONSES_TOOLS: Any = [{"type": "function", "name": "find_place", "parameters": PLACE, "strict": True}]

E = TypeVar("E", bound=openai.APIStatusError)


def backs(endpoint: str, feature: str, note: str = "") -> tuple[Row, ...]:
    return (Row(endpoint, feature, note),)


def create(**fields: Any) -> Any:
    """A chat completion that is short unless it is asked to be longer."""
    return client.chat.completions.create(**{"model": MODEL, "messages": QUESTION, "max_tokens": 12} | fields)


def assert_place(text: str) -> None:
    """Asserts that a text is JSON of the schema `PLACE`."""
    value = json.loads(text)
    equal(sorted(value), ["city", "people"], "fields")
    assert isinstance(value["city"], str) and len(value["city"]) <= 20, value
    assert type(value["people"]) is int and 0 <= value["people"] <= 99, value


def refused(kind: type[E], call: Callable[[], Any], code: str, param: str | None = None) -> E:
    """Asserts that the client raises this error, with a code and with the name of the parameter at fault."""
    try:
        call()
    except kind as error:
        equal((error.code, error.param), (code, param), str(error))
        assert error.type and error.message, error
        assert REQUEST_ID.fullmatch(error.request_id or ""), error.request_id
        return error
    raise AssertionError(f"not refused, as it should be with {code}")


# Chat completions


@test(backs=backs(CHAT, "Chat"))
def chat() -> None:
    answer = create()
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion", answer
    equal(answer.model, MODEL, "model")
    [choice] = answer.choices
    equal(choice.message.role, "assistant", "role")
    assert choice.message.content, answer
    assert choice.finish_reason in ("stop", "length"), answer
    usage = answer.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 12, usage
    equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "total tokens")


@test(backs=backs(CHAT, "System, developer and earlier messages"))
def conversation() -> None:
    messages = [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "What is the capital of Italy?"},
        {"role": "assistant", "content": "Rome."},
        {"role": "user", "content": [{"type": "text", "text": "And of France?"}]},
    ]
    longer, shorter = create(messages=messages), create(messages=messages[-1:])
    assert longer.choices[0].message.content, longer
    assert longer.usage.prompt_tokens > shorter.usage.prompt_tokens, "what was said before is part of the prompt"
    developer = create(messages=[{"role": "developer", "content": "Answer in one word."}, *QUESTION])
    assert developer.choices[0].message.content, developer


@test(backs=backs(CHAT, "Streaming"))
def stream() -> None:
    chunks = list(create(stream=True))
    assert_chunks(chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks), chunks
    equal([chunk for chunk in chunks if chunk.usage], [], "chunks with usage that nobody asked for")


def assert_chunks(chunks: list[ChatCompletionChunk]) -> None:
    equal({(chunk.object, chunk.model) for chunk in chunks}, {("chat.completion.chunk", MODEL)})
    equal(len({chunk.id for chunk in chunks}), 1, "ids")
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    equal(choices[0].delta.role, "assistant", "role")
    finishes = [choice.finish_reason for choice in choices]
    assert finishes[-1] and not any(finishes[:-1]), finishes


@test(backs=backs(CHAT, "Usage at the end of a stream", "`stream_options.include_usage`"))
def stream_usage() -> None:
    *chunks, last = create(stream=True, stream_options={"include_usage": True})
    assert_chunks(chunks)
    equal(last.choices, [], "choices beside the usage")
    assert last.usage.prompt_tokens > 0 and 0 < last.usage.completion_tokens <= 12, last


@test(backs=backs(CHAT, "Tools, a call required", "`tool_choice: required`; one call"))
def tool_required() -> None:
    answer = create(tools=TOOLS, tool_choice="required", max_tokens=80)
    [choice] = answer.choices
    equal(choice.finish_reason, "tool_calls", "finish reason")
    [call] = choice.message.tool_calls
    assert call.id and call.type == "function", call
    if call.function.name == "find_place":
        assert_place(call.function.arguments)
    else:
        equal((call.function.name, json.loads(call.function.arguments)), ("stop", {}))


@test(backs=backs(CHAT, "Tools, a function named", "`tool_choice: {function}`; one call"))
def tool_named() -> None:
    assert_place(named_call(create(**NAMED).choices[0]).arguments)


NAMED: dict[str, Any] = {
    "tools": TOOLS,
    "tool_choice": {"type": "function", "function": {"name": "find_place"}},
    "max_tokens": 80,
}


def named_call(choice: Any) -> Any:
    [call] = choice.message.tool_calls
    equal(call.function.name, "find_place", "name")
    return call.function


@test(backs=backs(CHAT, "Tools, left to the model", "`tool_choice: auto` and `none`"))
def tool_left_to_the_model() -> None:
    message = create(tools=TOOLS, tool_choice="auto").choices[0].message
    assert message.content or message.tool_calls, message
    message = create(tools=TOOLS, tool_choice="none").choices[0].message
    assert message.content and not message.tool_calls, message


@test(backs=backs(CHAT, "Tools, streamed"))
def tool_stream() -> None:
    chunks = list(create(stream=True, **NAMED))
    assert_chunks(chunks)
    equal(chunks[-1].choices[0].finish_reason, "tool_calls", "finish reason")
    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or []]
    equal({delta.index for delta in deltas}, {0}, "indexes")
    equal("".join(delta.function.name or "" for delta in deltas), "find_place", "name")
    assert_place("".join(delta.function.arguments or "" for delta in deltas))


@test(backs=backs(CHAT, "Tools, results sent back", "messages with `role: tool`"))
def tool_results() -> None:
    call = create(**NAMED).choices[0].message
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": '{"found": true}'}
    answer = create(tools=TOOLS, messages=[*QUESTION, call.model_dump(exclude_none=True), result])
    message = answer.choices[0].message
    assert message.content or message.tool_calls, answer


@test(backs=backs(CHAT, "JSON schema", "`response_format: json_schema`"))
def json_schema() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE, "strict": True}}
    choice = create(response_format=form, max_tokens=80).choices[0]
    equal(choice.finish_reason, "stop", "finish reason")
    assert_place(choice.message.content)


@test(backs=backs(CHAT, "JSON object", "`response_format: json_object`"))
def json_object() -> None:
    messages = [{"role": "user", "content": 'Answer with {"a": 1}'}]
    choice = create(messages=messages, response_format={"type": "json_object"}, max_tokens=300, seed=1).choices[0]
    assert choice.message.content.lstrip().startswith("{"), choice
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict), choice


@test(backs=backs(CHAT, "Log probabilities"))
def logprobs() -> None:
    choice = create(logprobs=True, top_logprobs=2, max_tokens=4).choices[0]
    tokens = choice.logprobs.content
    assert 0 < len(tokens) <= 4, tokens
    for token in tokens:
        assert token.logprob <= 0 and len(token.top_logprobs) == 2, token
        assert all(one.logprob <= 0 and one.bytes is not None for one in token.top_logprobs), token


@test(backs=backs(CHAT, "Several answers", "`n`"))
def several_answers() -> None:
    choices = create(n=3, temperature=1.5).choices
    equal([choice.index for choice in choices], [0, 1, 2], "indexes")
    assert all(choice.message.content for choice in choices), choices
    seen = {chunk.choices[0].index for chunk in create(n=2, stream=True) if chunk.choices}
    equal(seen, {0, 1}, "indexes of a stream")


@test(backs=backs(CHAT, "Stop sequences", "`stop`, up to four"))
def stop() -> None:
    # The schema lets the model say these words only.
    form = {"type": "json_schema", "json_schema": {"name": "words", "schema": {"const": "one two three"}}}
    choice = create(response_format=form, stop=["four", "two"], max_tokens=40).choices[0]
    equal((choice.finish_reason, choice.message.content), ("stop", '"one '))


@test(backs=backs(CHAT, "Seed", "the same seed, request and engine give the same answer"))
def seed() -> None:
    def sampled(number: int) -> str:
        return create(seed=number, temperature=1.5, max_tokens=16).choices[0].message.content

    # The first one brings the prompt into the cache, where the others find it.
    answers = [sampled(number) for number in (7, 7, 7, 8, 9)]
    equal(answers[1], answers[2], "two answers with one seed")
    assert len(set(answers)) > 1, "all seeds give the same answer"


@test(backs=backs(CHAT, "Sampling", "`temperature`, `top_p`, penalties, `logit_bias`"))
def sampling() -> None:
    fields = {"top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": 0.5, "logit_bias": {"42": -100}}
    assert create(temperature=0.5, **fields).choices[0].message.content
    equal(create(max_tokens=1).choices[0].finish_reason, "length", "finish reason")
    equal(create(max_tokens=openai.NOT_GIVEN, max_completion_tokens=1).usage.completion_tokens, 1, "tokens")


@test(backs=backs(CHAT, "Images", "refused: SmolLM2 has no vision; remote images, with any model"))
def images() -> None:
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    for url in [f"data:image/png;base64,{pixel}", "https://example.com/cat.png"]:
        content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
        param = "messages[0].content[1].image_url.url"
        said = [{"role": "user", "content": content}]
        error = refused(openai.BadRequestError, lambda given=said: create(messages=given), "unsupported_media", param)
        assert "vision" in error.message and "data:" in error.message, error.message


# Responses


def respond(**fields: Any) -> Any:
    wanted = {"model": MODEL, "input": "What is the capital of France?", "max_output_tokens": 12}
    return client.responses.create(**wanted | fields)


@test(backs=backs(RESPONSES, "Responses", "`instructions`, input as text or as messages"))
def responses() -> None:
    answer = respond(instructions="Be brief.")
    assert answer.id.startswith("resp_") and answer.object == "response" and answer.model == MODEL, answer
    assert answer.output_text and answer.status in ("completed", "incomplete"), answer
    assert answer.usage.input_tokens > 0 and 0 < answer.usage.output_tokens <= 12, answer.usage
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}, *QUESTION]
    assert respond(input=messages, store=False).output_text


@test(backs=backs(RESPONSES, "Streaming"))
def responses_stream() -> None:
    arrived = list(respond(stream=True))
    kinds = [event.type for event in arrived]
    equal(kinds[:2], ["response.created", "response.in_progress"], "first events")
    assert kinds[-1] in ("response.completed", "response.incomplete"), kinds
    numbers = [event.sequence_number for event in arrived]
    equal(numbers, sorted(set(numbers)), "sequence numbers")
    text = "".join(event.delta for event in arrived if event.type == "response.output_text.delta")
    [done] = [event.text for event in arrived if event.type == "response.output_text.done"]
    assert text, kinds
    equal((done, arrived[-1].response.output_text), (text, text), "the whole text")


@test(backs=backs(RESPONSES, "Tools", "`tool_choice: required` or a function; one call; also streamed"))
def responses_tools() -> None:
    wanted = {"tools": RESPONSES_TOOLS, "tool_choice": "required", "max_output_tokens": 80}
    [call] = respond(**wanted).output
    equal((call.type, call.name), ("function_call", "find_place"))
    assert call.call_id, call
    assert_place(call.arguments)
    arrived = list(respond(stream=True, **wanted))
    [done] = [event for event in arrived if event.type == "response.function_call_arguments.done"]
    assert_place(done.arguments)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": '{"found": true}'}
    assert respond(input=[*QUESTION, call.model_dump(exclude_none=True), result]).output


@test(backs=backs(RESPONSES, "JSON schema", "`text.format`"))
def responses_schema() -> None:
    form = {"type": "json_schema", "name": "place", "schema": PLACE, "strict": True}
    assert_place(respond(text={"format": form}, max_output_tokens=80).output_text)


@test(backs=backs(RESPONSES, "Stored responses", "refused: `store: true`, `previous_response_id`; nothing is kept"))
def responses_without_state() -> None:
    for name, value in {"store": True, "previous_response_id": "resp_1"}.items():
        wanted = {name: value}
        refused(openai.BadRequestError, lambda given=wanted: respond(**given), "unsupported_parameter", name)


# Completions, embeddings, models


@test(backs=backs(COMPLETIONS, "Completions", "one prompt or several"))
def completions() -> None:
    answer = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=8)
    assert answer.id.startswith("cmpl-") and answer.object == "text_completion" and answer.model == MODEL, answer
    assert answer.choices[0].text, answer
    assert 0 < answer.usage.completion_tokens <= 8, answer.usage
    several = client.completions.create(model=MODEL, prompt=["One", "Two"], max_tokens=2)
    equal([choice.index for choice in several.choices], [0, 1], "indexes")


@test(backs=backs(COMPLETIONS, "Streaming"))
def completions_stream() -> None:
    chunks = list(client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=8, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks), chunks
    assert chunks[-1].choices[0].finish_reason in ("stop", "length"), chunks[-1]


@test(backs=backs(EMBEDDINGS, "Embeddings", "as numbers and in base64"))
def embeddings() -> None:
    texts = ["a cat", "a house"]
    numbers = client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    coded = client.embeddings.create(model=MODEL, input=texts, encoding_format="base64")
    # The client asks for base64 by itself, and gives numbers.
    default = client.embeddings.create(model=MODEL, input=texts)
    equal([one.index for one in numbers.data], [0, 1], "indexes")
    for number, code, same in zip(numbers.data, coded.data, default.data, strict=True):
        raw = base64.b64decode(str(code.embedding), validate=True)
        decoded = struct.unpack(f"<{len(raw) // 4}f", raw)
        equal(len(decoded), len(number.embedding), "dimensions")
        for other in (decoded, same.embedding):
            assert all(math.isclose(a, b, abs_tol=1e-4) for a, b in zip(number.embedding, other, strict=True))
    assert numbers.data[0].embedding != numbers.data[1].embedding
    equal(numbers.usage.prompt_tokens, numbers.usage.total_tokens, "tokens")
    assert numbers.usage.prompt_tokens > 0, numbers.usage


@test(backs=backs(MODELS, "Models", "list and retrieve"))
def models() -> None:
    equal([model.id for model in client.models.list()], [MODEL])
    equal((client.models.retrieve(MODEL).id, client.models.retrieve(MODEL).object), (MODEL, "model"))
    refused(openai.NotFoundError, lambda: client.models.retrieve("gpt-4o"), "model_not_found", "model")


# Refusals


@test()
def what_is_not_served_is_refused_by_name() -> None:
    refused(openai.BadRequestError, lambda: create(extra_body={"id_slot": 1}), "unknown_parameter", "id_slot")
    refused(openai.BadRequestError, lambda: create(temperature="hot"), "invalid_type", "temperature")
    refused(openai.NotFoundError, lambda: create(model="gpt-4o"), "model_not_found", "model")
    refused(openai.NotFoundError, lambda: client.images.generate(model=MODEL, prompt="a cat"), "not_found")
    refused(openai.NotFoundError, lambda: client.files.list(), "not_found")
    long = [{"role": "user", "content": "word " * 5000}]
    refused(openai.BadRequestError, lambda: create(messages=long), "context_length_exceeded")


# Clients


@test(backs=backs("All", "Request ids", "`x-request-id` on every answer, errors included"))
def request_ids() -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, max_tokens=1)
    other = client.models.with_raw_response.list()
    ids = {raw.headers["x-request-id"], other.headers["x-request-id"]}
    assert len(ids) == 2 and all(REQUEST_ID.fullmatch(one) for one in ids), ids
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=QUESTION, max_tokens=1, stream=True
    ) as streamed:
        assert REQUEST_ID.fullmatch(streamed.headers["x-request-id"]), streamed.headers
    request(f"{BASE_URLS[0]}/nothing").refused(404, "not_found")


@test(backs=backs("All", "Asynchronous client"))
def asynchronous_client() -> None:
    async def ask() -> None:
        async with AsyncOpenAI(base_url=BASE_URLS[0], api_key="none", max_retries=0, timeout=TIMEOUT_SECONDS) as one:
            fields: Any = {"model": MODEL, "messages": QUESTION, "max_tokens": 4}
            whole, streamed = await asyncio.gather(
                one.chat.completions.create(**fields),
                one.chat.completions.create(**fields, stream=True),
            )
            assert whole.choices[0].message.content, whole
            assert_chunks([chunk async for chunk in streamed])

    asyncio.run(ask())


@test(backs=backs("All", "curl"))
def curl() -> None:
    body = json.dumps({"model": MODEL, "messages": QUESTION, "max_tokens": 4, "stream": True})
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", str(TIMEOUT_SECONDS)]
    command += [f"{BASE_URLS[0]}/chat/completions", "--header", "content-type: application/json", "--data", body]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    equal(data[-1], "[DONE]", "last event")
    assert_chunks([ChatCompletionChunk.model_validate_json(one) for one in data[:-1]])


@test(backs=backs("All", "Cancellation", "closing a stream ends its generation in the engine"))
def cancellation() -> None:
    items = 400
    form = {"type": "array", "items": {"type": "integer"}, "minItems": items, "maxItems": items}
    long = {"type": "json_schema", "json_schema": {"name": "numbers", "schema": form}}
    arriving = create(stream=True, max_tokens=openai.NOT_GIVEN, response_format=long)
    for chunk in arriving:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    equal(len(busy_slots()), 1, "slots in use")
    [slot] = busy_slots()
    arriving.close()
    poll("the engine is idle", lambda: not busy_slots())
    # Each item is at least one token: the answer was nowhere near its end.
    [ended] = [one for one in slots() if one["id"] == slot["id"]]
    assert ended["n_prompt_tokens"] < items, ended
    assert create().choices[0].message.content


def slots() -> list[dict[str, Any]]:
    return json.loads(over_socket(ENGINE_SOCKET, "GET", "/slots"))


def busy_slots() -> list[dict[str, Any]]:
    return [slot for slot in slots() if slot["is_processing"]]


@test(limit_seconds=150, backs=backs("All", "Concurrent streams", "of several tenants; each gets its own answer"))
def eight_streams_of_two_tenants() -> None:
    tenants = [OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120) for url in BASE_URLS]
    answers: dict[str, str] = {}

    def ask(one: OpenAI, name: str) -> None:
        # The schema lets the engine say this name only, so an answer shows whose it is.
        owner = {"type": "object", "properties": {"owner": {"const": name}}, "required": ["owner"]}
        form: Any = {"type": "json_schema", "json_schema": {"name": "owner", "schema": owner}}
        text: Any = [{"role": "user", "content": f"I am {name}. Who am I?"}]
        chunks = one.chat.completions.create(
            model=MODEL, messages=text, response_format=form, stream=True, max_tokens=100
        )
        answers[name] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    threads = [
        threading.Thread(target=ask, args=(tenants[number % 2], f"tenant-{number % 2}-stream-{number}"), daemon=True)
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(sorted(answers), sorted(f"tenant-{number % 2}-stream-{number}" for number in range(8)))
    for name, text in answers.items():
        equal(json.loads(text), {"owner": name}, f"answer to {name}")


# The compatibility table


def compare(passed: list[Test], failed: list[Test]) -> list[str]:
    """What is wrong with the checked-in table after this run."""
    path = Path(__file__).with_name("compatibility.json")
    broken = {row for one in failed for row in one.backs}
    backed = [vars(row) for one in passed for row in one.backs if row not in broken]
    if os.environ.get("CLOISTER_RECORD_COMPATIBILITY") == "1":
        path.write_text(json.dumps(backed, indent=2) + "\n")
        return []
    table = json.loads(path.read_text())
    unbacked = [f"{path.name}: no test that passed backs {row}" for row in table if row not in backed]
    missing = [f"{path.name}: {row} is missing" for row in backed if row not in table]
    return unbacked + missing


main(compare)
