# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The parts of an answer are the same however its text arrives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openllm.engine.request import RemoteNews
from openllm.serve.openai.answers import AnswerParser, Parts, RemoteParser, begins_thinking
from openllm.serve.openai.tools import CallFormat

CALL = '{"name": "find", "arguments": {"of": "a }"}}'


def parse(
    pieces: list[str], form: CallFormat | None = None, *, thinking: bool = False
) -> tuple[str, str, list[tuple[str, str]]]:
    parser, whole = AnswerParser(form, thinking=thinking), Parts()
    for parts in [*map(parser.feed, pieces), parser.finish()]:
        whole.reasoning += parts.reasoning
        whole.content += parts.content
        whole.calls += parts.calls
    return whole.reasoning, whole.content, [(call.name, call.arguments) for call in whole.calls]


FOUND = ("find", '{"of": "a }"}')

CASES = [
    # text, form, thinking, reasoning, content, calls
    ("Hello <b>\n", None, False, "", "Hello <b>\n", []),
    (" leading", None, False, "", " leading", []),
    ("<think>\nWell.\n</think>\n\nYes.\n", None, False, "Well.", "Yes.\n", []),
    ("<think></think>\n\nYes.", None, False, "", "Yes.", []),
    ("Well.\n</think>\n\nYes.", None, True, "Well.", "Yes.", []),
    ("<think>cut off", None, False, "cut off", "", []),
    ("<thin", None, False, "", "<thin", []),
    ("no <think> inside</think>", None, False, "", "no <think> inside</think>", []),
    (f"<tool_call>{CALL}</tool_call>", None, False, "", f"<tool_call>{CALL}</tool_call>", []),
    (f"<tool_call>\n{CALL}\n</tool_call>", "hermes", False, "", "", [FOUND]),
    (f"Now:\n<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>", "hermes", False, "",
     "Now:", [FOUND, FOUND]),
    (f"<tool_call>{CALL}", "hermes", False, "", "", [FOUND]),
    ("<tool_call>{broken}</tool_call> so", "hermes", False, "",
     "<tool_call>{broken}</tool_call> so", []),
    ("<tool_call>{cut", "hermes", False, "", "<tool_call>{cut", []),
    ("a <tool", "hermes", False, "", "a <tool", []),
    (f"<think>hm</think>\n<tool_call>{CALL}</tool_call>", "hermes", False, "hm", "", [FOUND]),
    (f"[TOOL_CALLS] [{CALL}, {CALL}]", "mistral", False, "", "", [FOUND, FOUND]),
    ('[TOOL_CALLS]find[ARGS]{"of": "a }"}', "mistral", False, "", "", [FOUND]),
    ('[TOOL_CALLS]find{"of": 1}[TOOL_CALLS]go{}', "mistral", False, "", "",
     [("find", '{"of": 1}'), ("go", "{}")]),
    ("[TOOL_CALLS] oh", "mistral", False, "", "[TOOL_CALLS] oh", []),
    ('{"name": "find", "parameters": {"of": 1}}', "llama3", False, "", "",
     [("find", '{"of": 1}')]),
    (f"<|python_tag|>{CALL}; {CALL}", "llama3", False, "", "", [FOUND, FOUND]),
    ('{"just": "json"}', "llama3", False, "", '{"just": "json"}', []),
    ("Plain.", "llama3", False, "", "Plain.", []),
    (CALL, "json", False, "", "", [FOUND]),
    ('{"name": "a b", "arguments": {}}', "json", False, "", '{"name": "a b", "arguments": {}}', []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "form", "thinking", "reasoning", "content", "calls"), CASES)
def test_whole_answers(text, form, thinking, reasoning, content, calls):
    assert parse([text], form, thinking=thinking) == (reasoning, content, calls)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_pieces_change_nothing(data):
    text, form, thinking, *expected = data.draw(st.sampled_from(CASES))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert parse(pieces, form, thinking=thinking) == tuple(expected)


@settings(max_examples=300, deadline=None)
@given(st.text(), st.text())
def test_text_without_tools_is_unchanged(first, second):
    text = first + second
    if not text.lstrip().startswith("<think>"):
        assert parse([first, second]) == ("", text, [])


PIECES = st.sampled_from(
    ["<tool_call>", "</tool_call>", "<think>", "</think>", "[TOOL_CALLS]", CALL, *" \na<{"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=8), st.sampled_from([None, "hermes", "mistral", "llama3", "json"]))
def test_any_text_is_parsed_the_same_in_pieces_and_as_a_whole(pieces, form):
    whole = parse(["".join(pieces)], form)
    assert parse(pieces, form) == whole
    assert parse(list("".join(pieces)), form) == whole


def test_a_call_is_told_as_soon_as_it_is_complete():
    parser = AnswerParser("hermes")
    assert not parser.feed(f"<tool_call>{CALL}</tool_ca")
    assert [call.name for call in parser.feed("ll>").calls] == ["find"]


def test_text_is_not_held_back_longer_than_necessary():
    parser = AnswerParser("hermes")
    assert parser.feed("so <b").content == "so <b"
    assert parser.feed(" <too").content == ""
    assert parser.feed("l> x").content == " <tool> x"


def test_prompts_that_begin_the_reasoning():
    assert begins_thinking("<|assistant|>\n<think>\n")
    assert not begins_thinking("<think>\n\n</think>\n\n")
    assert not begins_thinking("say <think> now")


def test_calls_of_another_server_are_collected():
    parser = RemoteParser()
    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    parts = parser.feed(RemoteNews([first], "why"))
    assert (parts.reasoning, parts.calls) == ("why", [])
    for piece in ('{"a"', ": 1}"):
        assert not parser.feed(RemoteNews([{"index": 0, "function": {"arguments": piece}}]))
    (call,) = parser.finish().calls
    assert (call.id, call.name, call.arguments) == ("c1", "f", '{"a": 1}')
