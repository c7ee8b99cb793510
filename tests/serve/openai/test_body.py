# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Bodies are read strictly; what is wrong is said without repeating it."""

import json

import pytest

from openllm.serve.errors import ApiError
from openllm.serve.openai.body import MAX_DEPTH, parse_json
from openllm.serve.openai.chat_schemas import ChatRequest


def problem(raw: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse_json(raw)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")
    return caught.value


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"{} {}", "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b'"a\nb\n', "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"\xff", "not valid UTF-8 at byte 0"),
        (b'{"a": "\xed\xa0\x80"}', "not valid UTF-8"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "too many digits"),
        (b"[" * 100_000, "deeper"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "deeper"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "deeper"),
        (rb'{"a": "\ud800"}', "surrogate"),
        (rb'{"\udc00": 1}', "surrogate"),
    ],
)
def test_what_is_not_strict_json(raw, words):
    assert words in problem(raw).message


@pytest.mark.parametrize(
    ("values", "message", "param"),
    [
        ([], "the body: input should be an object", None),
        ({"messages": ["x"]}, "'messages.0': input should be an object", "messages.0"),
        ({"messages": [{}]}, "the field 'messages.0.role' is missing", "messages.0.role"),
    ],
)
def test_what_is_no_object_or_has_no_kind(values, message, param):
    with pytest.raises(ApiError) as caught:
        ChatRequest.parse(values)
    assert (caught.value.message, caught.value.param) == (message, param)


def test_what_is_strict_json():
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert parse_json(deep) == json.loads(deep)
    assert parse_json(rb'"\ud83d\ude42 \u00e9"') == "🙂 é"
    many = b"[" + b"[]," * 500 + b"[]]"
    assert len(parse_json(many)) == 501
    assert parse_json(rb'"\\ud800"') == r"\ud800"


def test_whole_numbers_are_integers_however_they_are_written():
    value = parse_json(b"[2.0, 2.5, 1e3, -0.0, 1e300]")
    assert value == [2, 2.5, 1000, 0, 1e300]
    assert [type(one) for one in value] == [int, float, int, int, float]


def refusal(**fields: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        ChatRequest.parse({"messages": [{"role": "user", "content": "hi"}], **fields})
    return caught.value


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "is missing"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0", "role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages.0.content", "valid string"),
        ({"temperature": "1"}, "temperature", "number"),
        ({"temperature": 2.5}, "temperature", "less than or equal to 2"),
        ({"n": True}, "n", "integer"),
        ({"temprature": 1}, "temprature", "unknown field"),
        ({"functions": []}, "functions", "use 'tools'"),
        ({"web_search_options": {}}, "web_search_options", "not offered; leave it out"),
        ({"modalities": ["audio"]}, "modalities.0", "'text'"),
        ({"stop": [""]}, "stop.0", "at least 1 character"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x", "pattern"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name",
         "pattern"),
        ({"chat_template_kwargs": {"messages": 1}}, "chat_template_kwargs.messages", "request"),
    ],
)  # fmt: skip
def test_the_error_names_the_field(fields, param, words):
    error = refusal(**fields)
    assert (error.status, error.param) == (400, param)
    assert words in error.message


def test_the_error_does_not_repeat_values():
    secret = "sk-private-words"
    for fields in (
        {"temperature": secret},
        {"messages": [{"role": "user", "content": {"text": secret}}]},
        {"messages": [{"role": secret, "content": "x"}]},
        {"tool_choice": secret},
        {"response_format": {"type": secret}},
    ):
        assert secret not in json.dumps(refusal(**fields).body())


@pytest.mark.parametrize("values", [None, 1, "x", [], [{}]])
def test_bodies_that_are_no_objects(values):
    with pytest.raises(ApiError) as caught:
        ChatRequest.parse(values)
    assert caught.value.message.startswith("the body: ")
