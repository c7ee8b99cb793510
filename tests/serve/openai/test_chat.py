# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`/v1/chat/completions` over a model that repeats what it is told."""

import json

import pytest
from tests.serve.live import (
    AdapterEngine,
    FaultyEngine,
    backend_of,
    client_of,
    echo_app,
    error_of,
    events_of,
)

from openllm.engine.backends.echo import echo_backend
from openllm.text.byte_tokenizer import ByteTokenizer

PATH = "/v1/chat/completions"
FIND = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
CALL = '<tool_call>{"name": "find", "arguments": {"of": "é"}}</tool_call>'


@pytest.fixture(scope="module")
def client():
    with client_of() as client:
        yield client


def ask(client, text="hé ☕", **fields):
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}
    return client.post(PATH, json=body)


def joined_calls(pieces):
    """Functions of the calls whose pieces a stream brought, as OpenAI's clients join them."""
    found = []
    for piece in pieces:
        new = piece["index"] == len(found)
        assert set(piece) == ({"index", "id", "type", "function"} if new else {"index", "function"})
        assert ("name" in piece["function"]) == new
        if new:
            found.append({"name": piece["function"]["name"], "arguments": ""})
        found[piece["index"]]["arguments"] += piece["function"]["arguments"]
    return found


def test_answer(client):
    response = ask(client)
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert answer["id"].startswith("chatcmpl-")
    assert (answer["object"], answer["model"]) == ("chat.completion", "echo")
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "hé ☕\n", "refusal": None}
    assert (choice["finish_reason"], choice["logprobs"]) == ("stop", None)
    tokens = len("hé ☕\n".encode())
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (tokens, tokens)
    assert usage["total_tokens"] == 2 * tokens
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 3},
        {"max_tokens": 2},
        {"max_completion_tokens": 3, "max_tokens": 1},
        {"logprobs": True},
        {"logprobs": True, "top_logprobs": 1, "n": 2},
        {"stop": "☕"},
        {"tools": [FIND]},
    ],
)
@pytest.mark.parametrize("text", ["hé ☕", f"<think>\nhm\n</think>\n\nNow. {CALL}"])
def test_a_stream_says_the_same(client, fields, text):
    whole = ask(client, text, **fields).json()
    stream = ask(client, text, stream=True, stream_options={"include_usage": True}, **fields)
    assert stream.headers["content-type"].startswith("text/event-stream")
    chunks = events_of(stream.text)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    *chunks, last = chunks
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    for choice in whole["choices"]:
        mine = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        assert all(chunk["usage"] is None for chunk in chunks)
        deltas = [one["delta"] for one in mine]
        assert [delta.get("role") for delta in deltas] == ["assistant"] + [None] * (len(mine) - 1)
        message = choice["message"]
        assert "".join(d.get("content", "") for d in deltas) == (message["content"] or "")
        reasoning = "".join(d.get("reasoning_content", "") for d in deltas)
        assert reasoning == message.get("reasoning_content", "")
        calls = joined_calls([call for delta in deltas for call in delta.get("tool_calls", ())])
        assert calls == [call["function"] for call in message.get("tool_calls", ())]
        assert [one["finish_reason"] for one in mine if one["finish_reason"]] == [
            choice["finish_reason"]
        ]
        logprobs = [p for one in mine for p in (one["logprobs"] or {"content": []})["content"]]
        assert logprobs == (choice["logprobs"] or {"content": []})["content"]


def test_streams_without_usage_have_none(client):
    assert all("usage" not in chunk for chunk in events_of(ask(client, stream=True).text))


def test_logprobs(client):
    (choice,) = ask(client, "é", logprobs=True, top_logprobs=1).json()["choices"]
    first = choice["logprobs"]["content"][0]
    assert first == {
        "token": "�",
        "logprob": 0.0,
        "bytes": [0xC3],
        "top_logprobs": [{"token": "�", "logprob": 0.0, "bytes": [0xC3]}],
    }
    assert len(choice["logprobs"]["content"]) == 3
    (choice,) = ask(client, "é", top_logprobs=0).json()["choices"]
    assert choice["logprobs"]["content"][0]["top_logprobs"] == []
    (choice,) = ask(client, "é", logprobs=False, top_logprobs=1).json()["choices"]
    assert choice["logprobs"] is None


def test_lengths(client):
    (choice,) = ask(client, "abcdef", max_tokens=3).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("abc", "length")
    (choice,) = ask(client, "a" * 3000, max_tokens=10**30).json()["choices"]
    assert choice["finish_reason"] == "length"
    assert len(choice["message"]["content"]) == 4096 - 3001
    error = error_of(ask(client, "a" * 5000))
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    # clients look for the first
    for words in ("this model's maximum context length is", "5001", "4096"):
        assert words in error["message"]
    error = error_of(ask(client, "a" * 5000, stream=True))
    assert error["code"] == "context_length_exceeded"


def test_all_kinds_of_messages(client):
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "one"},
        {
            "role": "developer",
            "content": [{"type": "text", "text": "two", "cache_control": {"type": "ephemeral"}}],
        },
        {"role": "user", "content": [{"type": "text", "text": t} for t in ("three", "four")]},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
        {"role": "tool", "tool_call_id": "c1", "content": "five"},
        {"role": "user", "content": "six", "name": "me"},
    ]
    answer = client.post(PATH, json={"messages": messages}).json()
    content = answer["choices"][0]["message"]["content"]
    assert content == "one\ntwo\nthree\nfour\n\nfive\nsix\n"


def test_templates_see_tools_roles_arguments_and_variables():
    template = (
        "{% for m in messages %}[{{ m.role }}:{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.arguments.of }}{% endfor %}]{% endfor %}"
        "{% if tools %}{{ tools[0].function.name }}{% endif %}{{ mood }}{{ reasoning_effort }}"
    )
    from openllm.engine.backends.echo import EchoEngine

    backend = backend_of(EchoEngine(ByteTokenizer()), template=template)
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"of": 7}'}}
    messages = [
        {"role": "developer", "content": "be"},
        {"role": "assistant", "tool_calls": [call]},
    ]
    with client_of(echo_app({"echo": backend})) as client:
        body = {"messages": messages, "tools": [FIND], "reasoning_effort": "low"}
        answer = client.post(PATH, json={**body, "chat_template_kwargs": {"mood": "calm"}}).json()
    assert answer["choices"][0]["message"]["content"] == "[system:be][assistant:7]findcalmlow"


@pytest.mark.parametrize("arguments", ["no JSON", "", "[" * 5000, "[" * 600 + "]" * 600])
def test_arguments_that_are_no_values_stay_text(arguments):
    from openllm.engine.backends.echo import EchoEngine

    template = "{{ messages[0].tool_calls[0].function.arguments }}"
    backend = backend_of(EchoEngine(ByteTokenizer(), max_positions=1 << 14), template=template)
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    with client_of(echo_app({"echo": backend})) as client:
        messages = [{"role": "assistant", "tool_calls": [call]}]
        response = client.post(PATH, json={"messages": messages, "max_tokens": 5})
    if arguments:
        assert response.json()["choices"][0]["message"]["content"] == arguments[:5]
    else:
        assert "empty prompt" in error_of(response)["message"]


def test_calls_of_tools(client):
    (choice,) = ask(client, CALL, tools=[FIND]).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call["id"].startswith("call_")
    assert call["function"] == {"name": "find", "arguments": '{"of": "é"}'}
    for fields in ({}, {"tools": [FIND], "tool_choice": "none"}, {"tools": []}):
        (choice,) = ask(client, CALL, **fields).json()["choices"]
        assert "tool_calls" not in choice["message"]
        assert choice["message"]["content"] == CALL + "\n"


def test_one_call_at_a_time(client):
    for stream in (False, True):
        two = ask(client, CALL + CALL, tools=[FIND], stream=stream)
        one = ask(client, CALL + CALL, tools=[FIND], parallel_tool_calls=False, stream=stream)
        assert (two.text.count('"name"'), one.text.count('"name"')) == (2, 1)


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_cut_off(client, stream):
    given = {"tools": [FIND], "max_tokens": len(CALL) - 14, "stream": stream}
    response = ask(client, CALL, **given)
    if stream:
        choices = [choice for chunk in events_of(response.text) for choice in chunk["choices"]]
        pieces = [call for one in choices for call in one["delta"].get("tool_calls", ())]
        calls = joined_calls(pieces)
    else:
        choices = response.json()["choices"]
        calls = [call["function"] for call in choices[0]["message"]["tool_calls"]]
    assert choices[-1]["finish_reason"] == "length"
    assert calls == [{"name": "find", "arguments": '{"of": "é'}]


def test_wishes_that_cannot_be_met(client):
    named = {"type": "function", "function": {"name": "other"}}
    for fields, param in (
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": named, "tools": [FIND]}, "tool_choice"),
        ({"guided_regex": "a", "guided_choice": ["b"]}, None),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, None),
        ({"guided_json": "{"}, "guided_json"),
        ({"response_format": {"type": "json_object"}, "tools": [FIND], "tool_choice": "required"},
         None),
    ):  # fmt: skip
        assert error_of(ask(client, **fields))["param"] == param


def test_models_without_a_template_or_tools():
    from openllm.engine.backends.echo import EchoEngine

    plain = backend_of(EchoEngine(ByteTokenizer()), "plain", template=None)
    toolless = backend_of(
        EchoEngine(ByteTokenizer()), "toolless", template="{{ messages[0].content }}"
    )
    with client_of(echo_app({"plain": plain, "toolless": toolless})) as client:
        error = error_of(ask(client, model="plain"))
        assert "no chat template" in error["message"]
        error = error_of(ask(client, model="toolless", tools=[FIND]))
        assert error["param"] == "tools"
        assert ask(client, model="toolless").status_code == 200


def test_failures_of_the_model_say_nothing_of_the_inside():
    secret = FaultyEngine.SECRET
    with client_of(echo_app({"echo": backend_of(FaultyEngine(0))})) as client:
        for stream in (False, True):
            response = ask(client, stream=stream)
            assert error_of(response, 500)["type"] == "server_error"
            assert secret not in response.text
    with client_of(echo_app({"echo": backend_of(FaultyEngine(2))})) as client:
        response = ask(client, "abc", stream=True)
    assert response.status_code == 200
    events = events_of(response.text)
    assert "error" in events[-1] and events[-1]["error"]["type"] == "server_error"
    assert all("error" not in event for event in events[:-1])
    assert secret not in response.text


def test_adapters_are_models_of_their_own():
    backend = backend_of(AdapterEngine(ByteTokenizer()), "base", adapters=("loud",))
    with client_of(echo_app({"base": backend}, {"small": "base"})) as client:
        for name, text in (("base", "abc\n"), ("base:loud", "ABC\n"), ("small:loud", "ABC\n")):
            answer = ask(client, "abc", model=name).json()
            assert (answer["model"], answer["choices"][0]["message"]["content"]) == (name, text)
        assert error_of(ask(client, model="base:other"), 404)["code"] == "model_not_found"


def test_which_model():
    with client_of(echo_app({"a": echo_backend("a"), "b": echo_backend("b")})) as client:
        body = {"messages": [{"role": "user", "content": "x"}]}
        assert error_of(client.post(PATH, json=body))["code"] == "missing_model"
        assert client.post(PATH, json={**body, "model": "b"}).json()["model"] == "b"
    with client_of() as client:
        assert client.post(PATH, json=body).json()["model"] == "echo"
        error = error_of(client.post(PATH, json={**body, "model": "gpt-4"}), 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_what_is_not_json(client):
    raw = json.dumps({"messages": [{"role": "user", "content": "x"}]}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", None):
        headers = {} if kind is None else {"content-type": kind}
        error = error_of(client.post(PATH, content=raw, headers=headers), 415)
        assert error["code"] == "unsupported_media_type"
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/x+json"):
        assert client.post(PATH, content=raw, headers={"content-type": kind}).status_code == 200
    headers = {"content-type": "application/json"}
    assert error_of(client.post(PATH, content=b"\xff", headers=headers))["code"] == "invalid_json"
