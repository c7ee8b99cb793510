# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The parts of an answer are the same however its text arrives."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openllm.engine.request import RemoteNews
from openllm.serve.openai.answers import AnswerParser, Parts, RemoteParser, begins_thinking
from openllm.serve.openai.calls import CallPiece
from openllm.serve.openai.tools import CallFormat

CALL = '{"name": "find", "arguments": {"of": "a }"}}'
LINES = '{"of": "a\n\tb\\\n"}'


def parse(
    pieces: list[str], form: CallFormat | None = None, *, thinking: bool = False
) -> tuple[str, str, list[tuple[str, str]]]:
    parser, whole = AnswerParser(form, thinking=thinking), Parts()
    for parts in [*map(parser.feed, pieces), parser.finish()]:
        whole.reasoning += parts.reasoning
        whole.content += parts.content
        whole.calls += parts.calls
    return whole.reasoning, whole.content, calls_of(whole.calls)


def calls_of(pieces: list[CallPiece]) -> list[tuple[str, str]]:
    """Name and arguments of the calls that pieces make; only the first of each has id and name."""
    found: list[list[str]] = []
    for piece in pieces:
        assert bool(piece.id) == bool(piece.name) == (piece.index == len(found))
        if piece.name:
            found.append([piece.name, ""])
        found[piece.index][1] += piece.arguments
    return [(name, arguments) for name, arguments in found]


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
    # the order and the number of fields; arguments in a string, or none
    ('<tool_call>{"id": 1.5, "arguments": {"of": "a }"}, "name": "find"}</tool_call>', "hermes",
     False, "", "", [FOUND]),
    ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "hermes", False, "", "",
     [("f", '{"a": 1}')]),
    ('<tool_call>{"type": "function", "name": "go"}</tool_call> so', "hermes", False, "", "so",
     [("go", "{}")]),
    (f"<tool_call>[{CALL},\n {CALL}]</tool_call>", "hermes", False, "", "", [FOUND, FOUND]),
    # told as it is written: marks in strings, escapes, line breaks that JSON forbids
    ('<tool_call>{"name": "f", "arguments": {"a": "</tool_call>\\u00e9\\"{"}}</tool_call>',
     "hermes", False, "", "", [("f", '{"a": "</tool_call>\\u00e9\\"{"}')]),
    (f'<tool_call>{{"name": "f", "arguments": {LINES}}}</tool_call>', "hermes", False, "", "",
     [("f", r'{"of": "a\n\tb\\\n"}')]),
    # cut off, broken, with something behind
    ('<tool_call>{"name": "f", "arguments": {"a": [1, "b', "hermes", False, "", "",
     [("f", '{"a": [1, "b')]),
    ('<tool_call>{"name": "f", "arguments": {"a": oh}}</tool_call>', "hermes", False, "", "",
     [("f", '{"a": oh}')]),
    (f"<tool_call>{CALL}}}</tool_call>", "hermes", False, "", "", [FOUND]),
    (f"<tool_call>{CALL} and</tool_call>", "hermes", False, "", "and</tool_call>", [FOUND]),
    (f'[TOOL_CALLS] [{CALL}, {{"name": "fi', "mistral", False, "", ', {"name": "fi', [FOUND]),
    (f'<tool_call>{{"a": <tool_call>{CALL}', "hermes", False, "", '<tool_call>{"a":', [FOUND]),
    ("[TOOL_CALLS]", "mistral", False, "", "[TOOL_CALLS]", []),
    # without a mark, what has a name only is no call
    ('{"name": "Anna", "age": 3}', "llama3", False, "", '{"name": "Anna", "age": 3}', []),
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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.dictionaries(st.text(), JSON, max_size=3), st.sampled_from([None, 1]))
def test_any_arguments_come_through_in_any_pieces_and_as_far_as_they_go(data, values, indent):
    arguments = json.dumps(values, ensure_ascii=data.draw(st.booleans()), indent=indent)
    begin = '<tool_call>{"name": "f", "arguments": '
    text = f"{begin}{arguments}}}</tool_call>"
    size = data.draw(st.integers(len(begin) + 1, len(text)))
    cuts = sorted(data.draw(st.sets(st.integers(0, size), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
    assert parse(pieces, "hermes") == ("", "", [("f", arguments[: size - len(begin)])])


def test_a_call_is_told_as_it_comes():
    parser = AnswerParser("hermes")
    said = ["<tool_call>", '{"name": "find"', ', "arguments"', ': {"of"', ': "a', ' }"', "}", "}"]
    found = [parser.feed(text).calls for text in said]
    assert [len(calls) for calls in found[:3]] == [0, 0, 0]
    first, rest = found[3]
    assert (first.index, first.name, first.arguments) == (0, "find", "")
    assert first.id.startswith("call_")
    assert rest == CallPiece(0, arguments='{"of"')
    assert found[4:] == [
        [CallPiece(0, arguments=': "a')],
        [CallPiece(0, arguments=' }"')],
        [CallPiece(0, arguments="}")],
        [],
    ]


def test_text_is_not_held_back_longer_than_necessary():
    parser = AnswerParser("hermes")
    assert parser.feed("so <b").content == "so <b"
    assert parser.feed(" <too").content == ""
    assert parser.feed("l> x").content == " <tool> x"


def test_prompts_that_begin_the_reasoning():
    assert begins_thinking("<|assistant|>\n<think>\n")
    assert not begins_thinking("<think>\n\n</think>\n\n")
    assert not begins_thinking("say <think> now")


def remote_call(index: int, arguments: str = "", **facts: str) -> dict[str, Any]:
    name = {"name": facts.pop("name")} if "name" in facts else {}
    return {"index": index, **facts, "function": {**name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("news", "calls"),
    [
        # as OpenAI sends them
        ([[remote_call(0, id="a", name="f")], [remote_call(0, '{"x"')], [remote_call(0, ": 1}")],
          [remote_call(1, "{}", id="b", name="g")]], [("f", '{"x": 1}'), ("g", "{}")]),
        # id and name in each piece
        ([[remote_call(0, "{", id="a", name="f")], [remote_call(0, "}", id="a", name="f")]],
         [("f", "{}")]),
        # one index for all calls
        ([[remote_call(0, "{}", id="a", name="f"), remote_call(0, "[]", id="b", name="g")]],
         [("f", "{}"), ("g", "[]")]),
        # no ids
        ([[remote_call(0, "{", name="f")], [remote_call(0, "}")]], [("f", "{}")]),
    ],
)  # fmt: skip
def test_calls_of_another_server_are_passed_on(news, calls):
    parser = RemoteParser()
    found = [parser.feed(RemoteNews(one, "why")) for one in news]
    assert all(parts.reasoning == "why" for parts in found)
    assert calls_of([piece for parts in found for piece in parts.calls]) == calls


def test_a_name_may_follow_the_id():
    parser = RemoteParser()
    pieces = [remote_call(0, id="a"), remote_call(0, name="f"), remote_call(0, "{}", name="f")]
    (found,) = [parser.feed(RemoteNews(pieces)).calls]
    assert [(one.id, one.name, one.arguments) for one in found] == [
        ("a", "", ""),
        ("", "f", ""),
        ("", "", "{}"),
    ]
