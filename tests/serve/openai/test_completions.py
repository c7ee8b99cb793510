# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`/v1/completions` over a model that repeats its prompt."""

import pytest
from tests.serve.live import client_of, error_of, events_of

from openllm.serve.openai.schemas import MAX_TEXTS

PATH = "/v1/completions"


@pytest.fixture(scope="module")
def client():
    with client_of() as client:
        yield client


def ask(client, prompt="abc", **fields):
    return client.post(PATH, json={"model": "echo", "prompt": prompt, **fields})


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("hé", ["hé"]),
        (["a", "bc"], ["a", "bc"]),
        ([65, 66], ["AB"]),
        ([[65], [66, 67]], ["A", "BC"]),
    ],
)
def test_all_kinds_of_prompts(client, prompt, texts):
    answer = ask(client, prompt).json()
    assert (answer["object"], answer["model"]) == ("text_completion", "echo")
    assert [one["text"] for one in answer["choices"]] == texts
    assert [one["index"] for one in answer["choices"]] == list(range(len(texts)))
    size = sum(len(text.encode()) for text in texts)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["completion_tokens"] == size


def test_default_length(client):
    (choice,) = ask(client, "a" * 20).json()["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("a" * 16, "length")


def test_n_of_each_prompt(client):
    answer = ask(client, ["a", "b"], n=2, best_of=3).json()
    assert [one["text"] for one in answer["choices"]] == ["a", "a", "b", "b"]
    assert answer["usage"]["prompt_tokens"] == 2


STREAMED = [
    {},
    {"n": 2},
    {"echo": True},
    {"echo": True, "logprobs": 1, "n": 2},
    {"logprobs": 0, "max_tokens": 1},
    {"echo": True, "max_tokens": 0, "logprobs": 1},
    {"max_tokens": 0},
]


@pytest.mark.parametrize("fields", STREAMED)
@pytest.mark.parametrize("prompt", ["hé ☕", ["ab", "ç"], [[65, 66], [200]]])
def test_a_stream_says_the_same(client, prompt, fields):
    whole = ask(client, prompt, **fields).json()
    stream = ask(client, prompt, stream=True, stream_options={"include_usage": True}, **fields)
    *chunks, last = events_of(stream.text)
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    for choice in whole["choices"]:
        mine = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        assert "".join(one["text"] for one in mine) == choice["text"]
        reasons = [one["finish_reason"] for one in mine if one["finish_reason"]]
        assert reasons == [choice["finish_reason"]]
        shown = [one["logprobs"] for one in mine if one["logprobs"]]
        if choice["logprobs"] is None:
            assert shown == []
            continue
        for name, values in choice["logprobs"].items():
            assert [value for one in shown for value in one[name]] == values


def test_echo_with_logprobs(client):
    (choice,) = ask(client, "aé", echo=True, logprobs=1, max_tokens=1).json()["choices"]
    assert choice["text"] == "aéa"
    assert choice["logprobs"] == {
        "tokens": ["a", "�", "�", "a"],
        "token_logprobs": [None, 0.0, 0.0, 0.0],
        "top_logprobs": [None, {"�": 0.0}, {"�": 0.0}, {"a": 0.0}],
        "text_offset": [0, 1, 1, 2],
    }


def test_echo_without_new_tokens(client):
    answer = ask(client, ["ab", "c"], echo=True, logprobs=0, max_tokens=0).json()
    assert [one["text"] for one in answer["choices"]] == ["ab", "c"]
    assert [one["logprobs"]["token_logprobs"] for one in answer["choices"]] == [[None, 0.0], [None]]
    assert {one["finish_reason"] for one in answer["choices"]} == {"length"}
    assert answer["usage"]["completion_tokens"] == 0


def test_what_is_refused(client):
    assert error_of(ask(client, suffix="x"))["code"] == "unsupported_field"
    assert error_of(ask(client, n=3, best_of=2))["param"] == "best_of"
    assert error_of(ask(client, ["a"] * 100, n=100))["param"] == "n"
    assert error_of(ask(client, ["a"] * (MAX_TEXTS + 1)))["param"] == "prompt"
    assert error_of(ask(client, "a" * 5000))["code"] == "context_length_exceeded"
    assert error_of(ask(client, ["a", "a" * 5000]))["param"] == "prompt"
    assert "empty" in error_of(ask(client, ""))["message"]
    assert "token 256" in error_of(ask(client, [1, 256]))["message"]
    assert error_of(ask(client, [1, -1]))["param"].startswith("prompt")
    for prompt in ([], [[]], [1, "a"], [[1], "a"], {}, None, 1.5):
        assert error_of(ask(client, prompt))["param"].startswith("prompt")
    assert error_of(client.post(PATH, json={"model": "echo"}))["code"] == "missing_field"


def test_a_wrong_token_harms_no_other_request(client):
    assert ask(client, [10**9]).status_code == 400
    assert ask(client, "abc").json()["choices"][0]["text"] == "abc"
