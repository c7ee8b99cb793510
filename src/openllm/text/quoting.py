# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Keeping what people write apart from the control tokens that a template writes around it.

Where a message spells a control token, private characters stand for the spelling while the
template is rendered. What spells a control token afterwards comes from the template.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from openllm.core.errors import TemplateError

_FIRST, _LAST = "\U000f0000", "\U000ffffd"
"""A plane of private-use characters."""
_PRIVATE = re.compile(f"[{_FIRST}-{_LAST}]")
_ROLE = "role"


class Spellings:
    """The names of control tokens, to find in a text; the longest one counts."""

    def __init__(self, controls: Mapping[str, int]) -> None:
        self._ids = controls
        self._lengths = sorted({len(name) for name in controls}, reverse=True)
        self.heads = {name[:size] for name in controls for size in range(1, len(name))}
        self.tails = {name[-size:] for name in controls for size in range(1, len(name))}
        firsts = "".join(sorted({re.escape(name[0]) for name in controls}))
        self._first = re.compile(f"[{firsts}]") if firsts else None

    def split(self, text: str) -> Iterator[str | int]:
        """The text cut into ordinary text and ids of control tokens."""
        done, at = 0, 0
        while self._first is not None and (found := self._first.search(text, at)):
            at = found.start()
            name = next((n for s in self._lengths if (n := text[at : at + s]) in self._ids), None)
            if name is None:
                at += 1
                continue
            if done < at:
                yield text[done:at]
            yield self._ids[name]
            done = at = at + len(name)
        if done < len(text):
            yield text[done:]

    def names(self, text: str) -> Iterator[tuple[str, bool]]:
        """Parts of a text, and whether each is the name of a control token."""
        at = 0
        for part in self.split(text):
            size = len(part) if isinstance(part, str) else 0
            if isinstance(part, int):
                size = next(s for s in self._lengths if self._ids.get(text[at : at + s]) == part)
            yield text[at : at + size], isinstance(part, int)
            at += size


class Quoter:
    """Replaces spellings of control tokens in values by private characters, and puts them back."""

    def __init__(self, spellings: Spellings) -> None:
        self._spellings = spellings
        self._quotes: dict[str, str] = {}

    def quote(self, value: Any) -> Any:
        """A copy of a value in which no text spells a control token, nor begins or ends with a part
        of one that a template could complete.

        Roles only lose whole names: many templates make a control token of a role.

        Raises:
            TemplateError: there is too much to replace.
        """
        if isinstance(value, str):
            return self._quote_text(value)
        if isinstance(value, Mapping):
            return {
                self._quote_names(key) if isinstance(key, str) else key: self._quote_names(inner)
                if key == _ROLE and isinstance(inner, str)
                else self.quote(inner)
                for key, inner in value.items()
            }
        return [self.quote(item) for item in value] if isinstance(value, (list, tuple)) else value

    def unquote(self, text: str) -> str:
        """The text with everything put back, also where it was written as JSON in ASCII."""
        back = {quote: part for part, quote in self._quotes.items()}
        for quote, part in back.items():
            text = text.replace(json.dumps(quote)[1:-1], json.dumps(part)[1:-1])
        return _PRIVATE.sub(lambda found: back.get(found[0], found[0]), text) if back else text

    def _quote_text(self, text: str) -> str:
        text = self._quote_names(text)
        head = _longest(text, self._spellings.tails, at_end=False)
        text = self._replaced(text[:head]) + text[head:]
        tail = _longest(text, self._spellings.heads, at_end=True)
        return text[: len(text) - tail] + self._replaced(text[len(text) - tail :])

    def _quote_names(self, text: str) -> str:
        text = _PRIVATE.sub(lambda found: self._replaced(found[0]), text)
        parts = self._spellings.names(text)
        return "".join(self._replaced(part) if named else part for part, named in parts)

    def _replaced(self, part: str) -> str:
        if not part:
            return ""
        if part not in self._quotes:
            number = ord(_FIRST) + len(self._quotes)
            if number > ord(_LAST):
                raise TemplateError("the messages use too many private characters; remove some")
            self._quotes[part] = chr(number)
        return self._quotes[part]


def _longest(text: str, parts: set[str], *, at_end: bool) -> int:
    """The length of the longest of `parts` at one end of the text; 0 if there is none."""
    most = min(len(text), max(map(len, parts), default=0))
    for size in range(most, 0, -1):
        if (text[-size:] if at_end else text[:size]) in parts:
            return size
    return 0
