# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The parts of a model's answer: its reasoning, its text and its calls of tools."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openllm.engine.request import RemoteNews
from openllm.serve.openai.calls import CallPiece, CallReader
from openllm.serve.openai.tools import MISTRAL, OPEN, PYTHON_TAG, CallFormat, call_id

THINK, END_THINK = "<think>", "</think>"


@dataclass
class Parts:
    """What a piece of an answer adds to each of its parts."""

    reasoning: str = ""
    content: str = ""
    calls: list[CallPiece] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.reasoning or self.content or self.calls)


class AnswerParser:
    """Sorts the text of an answer into its parts as it arrives.

    Reasoning is what stands in `<think>` at the beginning. What looks like a call and is none stays
    text, so nothing that the model said is lost. White space around the parts belongs to none.
    """

    def __init__(self, form: CallFormat | None = None, *, thinking: bool = False) -> None:
        """Begin an answer.

        Args:
            form: how calls are written; none: there are no calls.
            thinking: the prompt ends with `<think>`.
        """
        self._form = form
        self._state = "reasoning" if thinking else "start"
        self._text = ""
        self._fresh = True  # nothing of the present part has come yet
        self._parts = Parts()
        self._calls = 0
        self._openers = {"hermes": (OPEN,), "mistral": (MISTRAL,), "llama3": (PYTHON_TAG,)}.get(
            form or "", ()
        )

    def feed(self, text: str) -> Parts:
        """Take more text; returns what is certain now."""
        self._text += text
        while self._advance():
            pass
        return self._taken()

    def finish(self) -> Parts:
        """End the answer."""
        while self._advance():
            pass
        while self._state == "calls":
            self._parts.calls += self._reader.finish()
            self._leave_calls()
            while self._advance():
                pass
        text, self._text = self._text, ""
        if self._state == "reasoning":
            self._parts.reasoning += self._trimmed(text).rstrip()
        else:
            self._parts.content += self._trimmed(text) if self._form else text
        return self._taken()

    def _taken(self) -> Parts:
        parts, self._parts = self._parts, Parts()
        return parts

    def _advance(self) -> bool:
        """Make one step; returns whether another may be possible."""
        return getattr(self, f"_in_{self._state}")()

    def _in_start(self) -> bool:
        begin = self._text.lstrip()
        if begin.startswith(THINK):
            self._text = begin[len(THINK) :]
            self._state = "reasoning"
            return True
        if THINK.startswith(begin):  # also nothing but white space
            return False
        self._fresh = self._form is not None
        return self._after_reasoning(begin)

    def _in_reasoning(self) -> bool:
        text, found = self._until((END_THINK,))
        self._parts.reasoning += self._trimmed(text.rstrip() if found else text)
        if found:
            self._state, self._fresh = "after", True
        return bool(found)

    def _in_after(self) -> bool:
        """Between the reasoning and what follows."""
        self._text = self._text.lstrip()
        if not self._text:
            return False
        return self._after_reasoning(self._text)

    def _after_reasoning(self, begin: str) -> bool:
        if self._form == "json" or (self._form == "llama3" and begin.startswith("{")):
            self._enter_calls("")
        else:
            self._state = "content"
        return True

    def _in_content(self) -> bool:
        text, found = self._until(self._openers)
        self._parts.content += self._trimmed(text.rstrip() if found else text)
        if found:
            self._enter_calls(found)
        return bool(found)

    def _in_calls(self) -> bool:
        text, self._text = self._text, ""
        self._parts.calls += self._reader.feed(text)
        if self._reader.over:
            self._leave_calls()
        return self._reader.over

    def _enter_calls(self, mark: str) -> None:
        assert self._form is not None, "without a form there are no marks"
        self._state, self._opened = "calls", mark
        self._reader = CallReader(self._form, self._calls, marked=bool(mark))

    def _leave_calls(self) -> None:
        """Go on with what is no call; if there was none at all, the mark was text, too."""
        self._state, self._text = "content", self._reader.left
        self._calls += self._reader.count
        if self._reader.count:
            self._fresh = True
        elif self._opened:
            self._parts.content += self._opened
            self._fresh = False

    def _trimmed(self, text: str) -> str:
        """Without the white space that a part begins with."""
        if self._fresh:
            text = text.lstrip()
            self._fresh = not text
        return text

    def _until(self, marks: Sequence[str]) -> tuple[str, str]:
        """Take the text before the first of some marks, and the mark, if it is there.

        Else what cannot be a part of a mark, nor white space before one.
        """
        found = [(at, mark) for mark in marks if (at := self._text.find(mark)) >= 0]
        if found:
            at, mark = min(found)
            text, self._text = self._text[:at], self._text[at + len(mark) :]
            return text, mark
        keep = max((_overlap(self._text, mark) for mark in marks), default=0)
        size = len(self._text) - keep
        if marks:
            size = len(self._text[:size].rstrip())
        text, self._text = self._text[:size], self._text[size:]
        return text, ""


class RemoteParser:
    """Passes on the parts that another server has found in an answer of its own."""

    def __init__(self) -> None:
        self._calls: list[_RemoteCall] = []

    def feed(self, news: RemoteNews) -> Parts:
        """Take more; returns what is new."""
        return Parts(reasoning=news.reasoning, calls=[self._piece(one) for one in news.tool_calls])

    def _piece(self, piece: Mapping[str, Any]) -> CallPiece:
        function = piece.get("function") or {}
        arguments, name = function.get("arguments") or "", function.get("name") or ""
        index, known = int(piece.get("index") or 0), piece.get("id") or ""
        # some servers repeat id and name in each piece; some give all calls one index
        for at, call in reversed(list(enumerate(self._calls))):
            if call.index == index and known in ("", call.id):
                name, call.named = "" if call.named else name, call.named or bool(name)
                return CallPiece(at, name=name, arguments=arguments)
        self._calls.append(_RemoteCall(index, known, bool(name)))
        return CallPiece(len(self._calls) - 1, known or call_id("hermes"), name, arguments)


@dataclass
class _RemoteCall:
    """A call as another server numbers it, and whether its name was told."""

    index: int
    id: str
    named: bool


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of a text that a mark begins with."""
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0


def begins_thinking(tail: str) -> bool:
    """Whether a prompt that ends so has the model begin with its reasoning."""
    return re.search(rf"{THINK}\s*\Z", tail) is not None
