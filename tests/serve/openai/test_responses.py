# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`/v1/responses`: the events build the same response that is sent without a stream."""

import json

import pytest
from tests.serve.live import FaultyEngine, backend_of, client_of, echo_app, error_of

from openllm.serve.openai.responses_chat import as_chat
from openllm.serve.openai.responses_schemas import ResponsesRequest

PATH = "/v1/responses"
FIND = {"type": "function", "name": "find", "parameters": {"type": "object"}}
CALL = '<tool_call>{"name": "find", "arguments": {"of": "é"}}</tool_call>'


@pytest.fixture(scope="module")
def client():
    with client_of() as client:
        yield client


def ask(client, given="hé", **fields):
    return client.post(PATH, json={"model": "echo", "input": given, **fields})


def events_of(text):
    found = []
    for block in text.strip().split("\n\n"):
        kind, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        found.append(event)
    assert [event.pop("sequence_number") for event in found] == list(range(len(found)))
    return found


def without_ids(response):
    output = [{**item, "id": None} for item in response["output"]]
    for item in output:
        if "call_id" in item:
            item["call_id"] = None
    return {**response, "id": None, "created_at": None, "output": output}


def test_answer(client):
    answer = ask(client, instructions="Be.", metadata={"a": "b"}, store=True).json()
    assert (answer["object"], answer["status"], answer["store"]) == ("response", "completed", False)
    (item,) = answer["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert item["content"][0]["text"] == "Be.\nhé\n"
    assert (answer["instructions"], answer["metadata"]) == ("Be.", {"a": "b"})
    assert answer["usage"]["input_tokens"] == answer["usage"]["output_tokens"] == 8


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ("hé ☕", {}),
        ("hé ☕", {"max_output_tokens": 2}),
        ("hé", {"include": ["message.output_text.logprobs"], "top_logprobs": 1}),
        (f"<think>\nhm\n</think>\n\nNow. {CALL}{CALL}", {"tools": [FIND]}),
        (CALL, {"tools": [FIND]}),
        ("<think>only this", {}),
    ],
)
def test_events_build_the_response(client, given, fields):
    whole = ask(client, given, **fields).json()
    stream = ask(client, given, stream=True, **fields)
    assert stream.headers["content-type"].startswith("text/event-stream")
    first, second, *events, last = events_of(stream.text)
    assert (first["type"], second["type"]) == ("response.created", "response.in_progress")
    assert last["type"] == f"response.{whole['status']}"
    assert without_ids(last["response"]) == without_ids(whole)
    built, done = {}, {}
    for event in events:
        kind, index = event["type"], event["output_index"]
        if kind == "response.output_item.added":
            built[index] = ""
        elif kind.endswith(".delta"):
            built[index] += event["delta"]
            assert event["item_id"] == last["response"]["output"][index]["id"]
        elif kind == "response.output_item.done":
            done[index] = event["item"]
    assert [done[i] for i in sorted(done)] == last["response"]["output"]
    for index, item in done.items():
        text = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        assert built[index] == text


def test_calls_come_after_reasoning_and_text(client):
    answer = ask(client, f"<think>hm</think> Now. {CALL}", tools=[FIND]).json()
    reasoning, message, call = answer["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert message["content"][0]["text"] == "Now."
    assert (call["type"], call["name"], call["arguments"]) == (
        "function_call", "find", '{"of": "é"}',
    )  # fmt: skip
    assert answer["usage"]["output_tokens_details"] == {"reasoning_tokens": 2}


def test_a_whole_conversation_becomes_messages():
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [],
         "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
         "content": [{"type": "output_text", "text": "b", "annotations": [], "logprobs": []}]},
        {"type": "function_call", "call_id": "c1", "name": "find", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "find", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output": [
            {"type": "input_text", "text": "two"}]},
        {"type": "message", "role": "assistant", "content": "c"},
        {"type": "message", "role": "assistant", "content": "d"},
        {"role": "user", "content": "e"},
    ]  # fmt: skip
    body = ResponsesRequest.parse({"input": items, "instructions": "sys"})
    found = [one.model_dump(exclude_none=True) for one in as_chat(body).messages]
    roles = [one["role"] for one in found]
    assert roles == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "assistant",
        "user",
    ]
    turn = found[2]
    assert (turn["reasoning_content"], turn["content"]) == ("hm", "b")
    assert [call["id"] for call in turn["tool_calls"]] == ["c1", "c2"]
    assert [one["content"] for one in found[3:]] == ["one", "two", "c", "d", "e"]


def test_wishes_are_passed_on():
    schema = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}
    body = ResponsesRequest.parse(
        {
            "input": "a",
            "temperature": 0.5,
            "top_k": 3,
            "seed": 7,
            "max_output_tokens": 9,
            "text": {"format": schema},
            "tools": [FIND],
            "tool_choice": {"type": "function", "name": "find"},
            "parallel_tool_calls": False,
            "reasoning": {"effort": "low"},
        }
    )
    chat = as_chat(body)
    assert (chat.temperature, chat.top_k, chat.seed) == (0.5, 3, 7)
    assert (chat.max_completion_tokens, chat.reasoning_effort) == (9, "low")
    assert chat.response_format.json_schema.schema_ == {"type": "object"}
    assert chat.tools[0].function.name == chat.tool_choice.function.name == "find"
    assert chat.parallel_tool_calls is False


def test_what_is_refused(client):
    for fields, code in (
        ({"previous_response_id": "resp_1"}, "unsupported_field"),
        ({"conversation": "c"}, "unsupported_field"),
        ({"background": True}, "unsupported_field"),
        ({"messages": []}, "unknown_field"),
    ):
        assert error_of(ask(client, **fields))["code"] == code
    for given in ([], None, [{"role": "tool", "content": "x"}], [{"type": "item_reference"}]):
        assert error_of(ask(client, given))
    assert error_of(ask(client, "a" * 5000, stream=True))["code"] == "context_length_exceeded"


def test_a_failure_in_the_middle_is_an_event():
    with client_of(echo_app({"echo": backend_of(FaultyEngine(2))})) as client:
        response = ask(client, "abc", stream=True)
    assert response.status_code == 200
    assert FaultyEngine.SECRET not in response.text
    *events, last = events_of(response.text)
    assert events[-1]["type"] == "response.output_text.delta"
    assert (last["type"], last["code"], last["param"]) == ("error", None, None)
    assert last["message"] == last["error"]["message"]
    assert last["error"]["type"] == "server_error"
