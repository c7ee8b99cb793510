# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Control tokens decode to nothing; what parses answers needs their names."""

import pytest

from openllm.engine.output import Output
from openllm.engine.request import SamplingParams, TokenLogprob, Update
from openllm.serve.openai.spelling import chat_logprob, spelling_of, top_logprobs
from openllm.text.load import load_tokenizer

MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]")


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return load_tokenizer(tokenizer_folder)


def test_names_of_control_tokens_stand_where_they_were_written(tokenizer):
    spelling = spelling_of(tokenizer)
    wanted = spelling.ids_of(MARKS)
    assert len(wanted) == 4
    parts = ["<think>", "hm é", "</think>", "so ", "<tool_call>", "☕", "</tool_call>", "end"]
    ids = tokenizer.encode_parts([tokenizer.controls.get(part, part) for part in parts])
    for size in (1, 2, 3, len(ids)):
        params = SamplingParams(max_new_tokens=100, stop=("no such thing",))
        output = Output(tokenizer, params, (), 100)
        text = ""
        for begin in range(0, len(ids), size):
            for index in ids[begin : begin + size]:
                output.take(index)
            text += spelling.marked(output.news("r"), wanted)
        output.end("stop")
        text += spelling.marked(output.news("r"), wanted)
        assert text == "".join(parts)


def test_without_markers_the_text_is_left_alone(tokenizer):
    spelling = spelling_of(tokenizer)
    update = Update("r", text="held", token_ids=[tokenizer.controls["<think>"]])
    assert spelling.marked(update, frozenset()) == "held"


def test_tokens_as_clients_see_them(tokenizer):
    spelling = spelling_of(tokenizer)
    think = tokenizer.controls["<think>"]
    ids = tokenizer.encode_parts([think, "Anna"])
    assert spelling.text(ids) == "<think>Anna"
    assert spelling.is_control(b"<think>") and not spelling.is_control(b"Anna")
    one = TokenLogprob(think, float("-inf"), {ids[1]: -0.5, think: float("-inf")})
    shown = chat_logprob(one, spelling)
    assert (shown["token"], shown["logprob"]) == ("<think>", -9999.0)
    assert [entry["logprob"] for entry in shown["top_logprobs"]] == [-0.5, -9999.0]
    assert list(top_logprobs(one, spelling).values()) == [-0.5, -9999.0]


def test_another_server_spells_for_itself():
    one = TokenLogprob(-1, -0.5, {-1: -0.5, -2: -1.5}, {-1: b"\xc3", -2: b"x"})
    shown = chat_logprob(one, None)
    assert (shown["token"], shown["bytes"]) == ("�", [0xC3])
    assert top_logprobs(one, None) == {"�": -0.5, "x": -1.5}
