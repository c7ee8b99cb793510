# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Calls of tools, read from a model's answer while it arrives."""

import json
import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from openllm.serve.openai.tools import ARGS, CLOSE, MISTRAL, CallFormat, call_id
from openllm.text.tokenizer import whole_characters

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_SPACE = " \t\r\n"
_BETWEEN = _SPACE + ",;[]}"
"""What may stand around calls: the marks of a list, and a bracket too many."""

Wait = Generator[None]
"""Reads on; yields where more text is needed."""


@dataclass(frozen=True)
class CallPiece:
    """What is new of a call.

    Attributes:
        index: which of the answer's calls.
        id, name: with its first piece, then empty.
        arguments: what is added to them.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class CallReader:
    """Reads calls one after another; what is certain is told at once.

    A call is certain as soon as its name is known and its arguments begin. These are passed on as
    the model writes them, also if they end early or are no JSON: the same, however they arrive.

    Attributes:
        count: calls so far.
        over: there are no more; `left` is the text that is none of them.
    """

    def __init__(self, form: CallFormat, first: int = 0, *, marked: bool = True) -> None:
        """Begin behind the mark that announces calls.

        Args:
            form: how they are written.
            first: index of the first.
            marked: there was a mark; else any JSON object may come, and without arguments it is no
                call.
        """
        self.count, self.over, self.left = 0, False, ""
        self._form: CallFormat = form
        self._first, self._marked = first, marked
        self._mark = {"hermes": CLOSE, "mistral": MISTRAL}.get(form)
        self._text, self._at = "", 0  # what is not told yet, and how far it was looked at
        self._ended = self._sending = False
        self._pieces: list[CallPiece] = []
        self._work = self._calls()

    def feed(self, text: str) -> list[CallPiece]:
        """Take more text; returns what is certain now."""
        self._text += text
        if next(self._work, True):
            self.over, self.left = True, self._text
        elif self._sending:
            self._tell_arguments()
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> list[CallPiece]:
        """The answer has ended."""
        self._ended = True
        return self.feed("")

    def _calls(self) -> Wait:
        while char := (yield from self._next_mark()):
            if char == "{":
                good = yield from self._object()
            else:
                good = self._form == "mistral" and (yield from self._named())
            if not good:
                return
        if self.count:
            self._drop()

    def _next_mark(self) -> Generator[None, None, str]:
        """Go to the next call; returns what it begins with, empty if the calls have ended."""
        while char := (yield from self._peek()):
            if self._mark and (yield from self._begins(self._mark)):
                self._at += len(self._mark)
                if self._mark == CLOSE:
                    return ""
            elif char not in _BETWEEN:
                return char
            else:
                self._at += 1
        return ""

    def _object(self) -> Generator[None, None, bool]:
        """Read an object; returns whether it is a call."""
        self._at += 1
        found: dict[str, str] = {}
        before = self.count
        while True:
            char = yield from self._peek(_SPACE + ",")
            if char != '"':
                break
            key = yield from self._value()
            begin = yield from self._peek(_SPACE + ":")
            name = _name_in(found) if self.count == before else None
            if key in ('"arguments"', '"parameters"') and begin == "{" and name:
                yield from self._send(name)
                continue
            found[key.strip('"')] = yield from self._value()
        if self.count == before and char == "}":
            self._tell_whole(_name_in(found), found.get("arguments", found.get("parameters")))
        if self.count == before:
            return False
        self._at += char == "}"
        self._drop()
        return True

    def _named(self) -> Generator[None, None, bool]:
        """Read a name and an object; returns whether it is a call."""
        while (brace := self._text.find("{", self._at)) < 0:
            if self._ended:
                return False
            yield
        name = self._text[self._at : brace].strip().removesuffix(ARGS).rstrip()
        if not _NAME.fullmatch(name):
            return False
        self._at = brace
        yield from self._send(name)
        self._drop()
        return True

    def _send(self, name: str) -> Wait:
        """Tell a call, and its arguments as they come."""
        self._drop()
        self._begin(name)
        self._sending = True
        yield from self._value()
        self._tell_arguments()
        self._sending = False

    def _tell_whole(self, name: str | None, arguments: str | None) -> None:
        """Tell a call whose arguments came before its name, in a string, or not at all."""
        if arguments is None and self._marked:
            arguments = "{}"
        value = _parsed(arguments or "")
        if isinstance(value, str):
            arguments, value = whole_characters(value), _parsed(value)
        if name and arguments and isinstance(value, dict):
            self._begin(name)
            self._add(arguments)

    def _tell_arguments(self) -> None:
        if self._at:
            self._add(self._text[: self._at])
            self._drop()

    def _begin(self, name: str) -> None:
        self._pieces.append(CallPiece(self._first + self.count, call_id(self._form), name))
        self.count += 1

    def _add(self, arguments: str) -> None:
        self._pieces.append(CallPiece(self._first + self.count - 1, arguments=arguments))

    def _drop(self) -> None:
        """Forget what was looked at."""
        self._text, self._at = self._text[self._at :], 0

    def _peek(self, skip: str = "") -> Generator[None, None, str]:
        """The next character that is none of some; empty at the end."""
        while True:
            while self._at < len(self._text):
                if (char := self._text[self._at]) not in skip:
                    return char
                self._at += 1
            if self._ended:
                return ""
            yield

    def _begins(self, mark: str) -> Generator[None, None, bool]:
        """Whether a mark comes next; the answer may end in the middle of it."""
        while mark.startswith(rest := self._text[self._at :]) and rest != mark:
            if self._ended:
                return True
            yield
        return self._text.startswith(mark, self._at)

    def _value(self) -> Generator[None, None, str]:
        """Pass a JSON value; returns it, if it is not told meanwhile."""
        begin, depth, quoted, escaped = self._at, 0, False, False
        while char := (yield from self._peek()):
            if quoted:
                if char < " " and self._sending:
                    self._escape(char, again=escaped)
                quoted = escaped or char != '"'
                escaped = not escaped and char == "\\"
            elif char == '"':
                quoted = True
                self._at += 1
                continue
            elif char in "{[":
                depth += 1
            elif not depth and char in _SPACE + ",]}":  # behind a number or a word
                break
            elif char in "]}":
                depth -= 1
            self._at += 1
            if not (depth or quoted) and char in '"]}':
                break
        return self._text[begin : self._at]

    def _escape(self, char: str, *, again: bool) -> None:
        """Write a line break in a string as JSON wants it; `again`: behind a backslash."""
        spelled = "\\" * again + json.dumps(char)[1:-1]
        self._text = self._text[: self._at] + spelled + self._text[self._at + 1 :]
        self._at += len(spelled) - 1


def _name_in(found: dict[str, str]) -> str | None:
    name = _parsed(found.get("name", ""))
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
