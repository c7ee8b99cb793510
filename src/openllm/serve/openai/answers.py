# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The parts of a model's answer: its reasoning, its text and its calls of tools."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from openllm.engine.request import RemoteNews
from openllm.serve.openai.tools import (
    CLOSE,
    MISTRAL,
    OPEN,
    PYTHON_TAG,
    Call,
    CallFormat,
    read_calls,
)

THINK, END_THINK = "<think>", "</think>"


@dataclass
class Parts:
    """What a piece of an answer adds to each of its parts."""

    reasoning: str = ""
    content: str = ""
    calls: list[Call] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.reasoning or self.content or self.calls)


class AnswerParser:
    """Sorts the text of an answer into its parts as it arrives.

    Reasoning is what stands in `<think>` at the beginning. A call appears when it is complete; one
    that cannot be read stays text, so nothing that the model said is lost. White space around the
    parts belongs to none.
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
        self.feed("")
        text, self._text = self._text, ""
        if self._state == "reasoning":
            self._parts.reasoning += self._trimmed(text).rstrip()
        elif self._state in ("call", "rest"):
            self._finish_call(text)
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
        self._state = "content"
        if self._form == "json" or (self._form == "llama3" and begin.startswith("{")):
            self._state, self._opened = "rest", ""
        return True

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
        whole = self._form == "json" or (self._form == "llama3" and self._text.startswith("{"))
        self._state, self._opened = ("rest", "") if whole else ("content", "")
        return True

    def _in_content(self) -> bool:
        text, found = self._until(self._openers)
        self._parts.content += self._trimmed(text.rstrip() if found else text)
        if found:
            self._state, self._opened = ("call" if found == OPEN else "rest"), found
        return bool(found)

    def _in_call(self) -> bool:
        inside, mark, after = self._text.partition(CLOSE)
        if not mark:
            return False
        calls = read_calls(inside, "hermes")
        if calls is None:
            self._parts.content += OPEN + inside + CLOSE
            self._fresh = False
        else:
            self._parts.calls += calls
            self._fresh = True
        self._text, self._state = after, "content"
        return True

    def _in_rest(self) -> bool:
        """All that follows is one call, or several."""
        return False

    def _finish_call(self, text: str) -> None:
        """A call that ends with the answer; a last `</tool_call>` is often left out."""
        calls = read_calls(text, self._form or "json")
        if calls is None:
            self._parts.content += self._opened + text
        else:
            self._parts.calls += calls

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
    """Collects the parts that another server has found in an answer of its own."""

    def __init__(self) -> None:
        self._calls: dict[int, list[str]] = {}

    def feed(self, news: RemoteNews) -> Parts:
        """Take more; returns the reasoning at once, and keeps calls until they are complete."""
        for piece in news.tool_calls:
            function = piece.get("function") or {}
            call = self._calls.setdefault(int(piece.get("index") or 0), ["", "", ""])
            for at, more in enumerate(
                (piece.get("id"), function.get("name"), function.get("arguments"))
            ):
                call[at] += more or ""
        return Parts(reasoning=news.reasoning)

    def finish(self) -> Parts:
        """The calls."""
        return Parts(calls=[Call(*call) for _, call in sorted(self._calls.items())])


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of a text that a mark begins with."""
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0


def begins_thinking(tail: str) -> bool:
    """Whether a prompt that ends so has the model begin with its reasoning."""
    return re.search(rf"{THINK}\s*\Z", tail) is not None
