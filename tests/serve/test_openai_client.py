# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The official client of OpenAI's API, unchanged, against a server on a port."""

import asyncio
import inspect
import threading

import httpx
import openai
import pytest
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.serve.asgi import slow_backend
from tests.serve.live import FaultyEngine, backend_of, echo_app, live

from openllm.engine.backends.echo import echo_backend
from openllm.serve.errors import ApiError
from openllm.serve.openai.chat_schemas import ChatRequest
from openllm.serve.openai.completion_schemas import CompletionRequest
from openllm.serve.openai.embeddings import EmbeddingRequest
from openllm.serve.openai.responses_schemas import ResponsesRequest

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
    },
}
CALL = '<tool_call>{"name": "weather", "arguments": {"town": "Genève"}}</tool_call>'


class BusyAtFirst:
    """Refuses the first requests as a busy server does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.refusals = 0
        self.seen = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.seen += 1
            if self.refusals:
                self.refusals -= 1
                headers = {"retry-after": "0"}
                busy = ApiError("too many", status=429, code="rate_limit", headers=headers)
                await busy.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def slow():
    return slow_backend(0.01)


@pytest.fixture(scope="module")
def gate(slow):
    faulty = backend_of(FaultyEngine(2), "faulty")
    models = {"echo": echo_backend(), "faulty": faulty, "slow": slow[0]}
    return BusyAtFirst(echo_app(models, {"gpt-4o": "echo"}))


@pytest.fixture(scope="module")
def url(gate):
    with live(gate) as found:
        yield found


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def say(text):
    return [{"role": "user", "content": text}]


def test_chat(client):
    answer = client.chat.completions.create(model="gpt-4o", messages=say("Grüezi"), user="me")
    assert answer.model == "gpt-4o"
    assert answer.choices[0].message.content == "Grüezi\n"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens * 2
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


def test_every_argument_of_the_client_is_known(client):
    """Those that are not offered may be null, and are refused by name."""
    for call, schema in (
        (client.chat.completions.create, ChatRequest),
        (client.completions.create, CompletionRequest),
        (client.embeddings.create, EmbeddingRequest),
        (client.responses.create, ResponsesRequest),
    ):
        arguments = set(inspect.signature(call).parameters)
        arguments -= {"extra_headers", "extra_query", "extra_body", "timeout"}
        assert arguments <= {field.alias or n for n, field in schema.model_fields.items()}


def test_n_answers(client):
    answer = client.chat.completions.create(model="echo", messages=say("x"), n=3, seed=-5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


def test_chat_stream(client):
    stream = client.chat.completions.create(
        model="echo", messages=say("hé ☕"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    texts = [c.delta.content or "" for chunk in chunks for c in chunk.choices]
    assert "".join(texts) == "hé ☕\n"
    assert chunks[-1].usage.completion_tokens == 8


def test_chat_stream_helper(client):
    with client.chat.completions.stream(model="echo", messages=say("abc")) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "abc\n"


def test_tools(client):
    wish = {"model": "echo", "messages": say(CALL), "tools": [TOOL]}
    whole = client.chat.completions.create(**wish)
    with client.chat.completions.stream(**wish) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion()
    for answer in (whole, streamed):
        assert answer.choices[0].finish_reason == "tool_calls"
        (call,) = answer.choices[0].message.tool_calls
        assert (call.function.name, call.function.arguments) == ("weather", '{"town": "Genève"}')


def test_a_round_trip_with_a_tool(client):
    first = client.chat.completions.create(model="echo", messages=say(CALL), tools=[TOOL])
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}
    second = client.chat.completions.create(
        model="echo", messages=[*say("?"), message, result], tools=[TOOL]
    )
    assert second.choices[0].message.content == "?\n\nrain\n"


def test_parsed_answers(client):
    class Town(BaseModel):
        name: str

    answer = client.chat.completions.parse(
        model="echo", messages=say('{"name": "Bern"}'), response_format=Town
    )
    assert answer.choices[0].message.parsed == Town(name="Bern")
    answer = client.chat.completions.create(
        model="echo", messages=say("{}"), response_format={"type": "json_object"}
    )
    assert answer.choices[0].message.content == "{}\n"


def test_logprobs(client):
    answer = client.chat.completions.create(
        model="echo", messages=say("a"), logprobs=True, top_logprobs=2
    )
    first = answer.choices[0].logprobs.content[0]
    assert (first.token, first.logprob, first.bytes) == ("a", 0.0, [97])
    assert first.top_logprobs[0].token == "a"


def test_vllm_fields(client):
    answer = client.chat.completions.create(
        model="echo",
        messages=say("<think>hm</think>yes"),
        extra_body={"top_k": 5, "min_p": 0.1, "chat_template_kwargs": {"enable_thinking": True}},
    )
    message = answer.choices[0].message
    assert (message.content, message.reasoning_content) == ("yes\n", "hm")


def test_completions(client):
    answer = client.completions.create(
        model="echo", prompt=["ab", "c"], echo=True, logprobs=1, max_tokens=1
    )
    assert [choice.text for choice in answer.choices] == ["aba", "cc"]
    assert answer.choices[0].logprobs.token_logprobs == [None, 0.0, 0.0]
    stream = client.completions.create(model="echo", prompt="abc", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "abc"


def test_embeddings(client):
    # the client asks for base64 if it is not told otherwise
    one = client.embeddings.create(model="echo", input="abc")
    two = client.embeddings.create(model="echo", input=["abc"], encoding_format="float")
    assert one.data[0].embedding == pytest.approx(two.data[0].embedding, abs=1e-6)
    assert one.usage.prompt_tokens == 3


def test_models(client):
    assert [model.id for model in client.models.list()] == ["echo", "faulty", "slow"]
    assert client.models.retrieve("gpt-4o").owned_by == "openllm"


def test_responses(client):
    answer = client.responses.create(model="echo", input="hé", instructions="Be.")
    assert answer.output_text == "Be.\nhé\n"
    assert answer.usage.input_tokens == 8
    events = list(client.responses.create(model="echo", input="hé", stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "hé\n"
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "hé\n"


def test_responses_with_tools(client):
    tool = {"type": "function", **TOOL["function"], "strict": None}
    first = client.responses.create(model="echo", input=CALL, tools=[tool])
    (call,) = first.output
    assert (call.type, call.name, call.arguments) == (
        "function_call",
        "weather",
        '{"town": "Genève"}',
    )
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    second = client.responses.create(model="echo", input=[*first.output, result])
    assert second.output_text == "\nrain\n"


def test_responses_stream_helper(client):
    with client.responses.stream(model="echo", input="abc") as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == "abc\n"


def test_errors_are_the_classes_of_the_client(client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="none", messages=say("x"))
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="echo", messages=say("x" * 5000))
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="unknown field 'nonsense'"):
        client.chat.completions.create(model="echo", messages=say("x"), extra_body={"nonsense": 1})
    with pytest.raises(openai.InternalServerError):
        client.completions.create(model="faulty", prompt="abcd")


def test_an_error_in_the_middle_of_a_stream():
    backend = backend_of(FaultyEngine(2))
    texts = []
    with (
        live(echo_app({"echo": backend})) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.APIError, match="try again") as caught,
    ):
        for chunk in client.completions.create(model="echo", prompt="abcd", stream=True):
            texts.append(chunk.choices[0].text)
    assert "".join(texts) == "ab"
    assert FaultyEngine.SECRET not in str(caught.value)


@pytest.mark.integration
def test_retries_after_429(client, gate):
    gate.refusals, gate.seen = 2, 0
    patient = client.with_options(max_retries=2)
    answer = patient.chat.completions.create(model="echo", messages=say("x"))
    assert (answer.choices[0].message.content, gate.seen) == ("x\n", 3)
    gate.refusals = 1
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="echo", messages=say("x"))


def test_many_at_once(url):
    async def run():
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

        async def one(number):
            text = f"number {number} "
            stream = await client.chat.completions.create(
                model="echo", messages=say(text * 5), stream=True
            )
            return "".join(
                [c.choices[0].delta.content or "" async for c in stream]
            ), text * 5 + "\n"

        return await asyncio.gather(*map(one, range(64)))

    for found, expected in asyncio.run(run()):
        assert found == expected


def wait_for(condition):
    moment = threading.Event()
    for _ in range(1000):
        if condition():
            return
        moment.wait(0.01)
    raise AssertionError("it did not happen")


def long_body(path, **fields):
    text = "x" * 2000
    if path == "completions":
        return {"model": "slow", "prompt": text, "max_tokens": 2000, **fields}
    given = {"messages": say(text)} if path == "chat/completions" else {"input": text}
    return {"model": "slow", **given, **fields}


PATHS = ["chat/completions", "completions", "responses"]


@pytest.mark.parametrize("path", PATHS)
def test_leaving_a_stream_cancels(url, slow, path):
    backend, engine = slow
    before = len(engine.aborted)
    body = long_body(path, stream=True)
    with httpx.Client() as client, client.stream("POST", f"{url}/v1/{path}", json=body) as stream:
        next(stream.iter_bytes())
    wait_for(lambda: len(engine.aborted) == before + 1)
    assert backend.stats().running == 0


@pytest.mark.parametrize("path", PATHS)
def test_leaving_before_the_answer_cancels(url, slow, path):
    backend, engine = slow
    before = len(engine.aborted)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/{path}", json=long_body(path), timeout=0.2)
    wait_for(lambda: len(engine.aborted) == before + 1)
    assert backend.stats().running == 0
