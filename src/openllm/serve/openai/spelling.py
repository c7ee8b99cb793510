# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Tokens as clients see them: control tokens by their names, all others by their text."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from openllm.engine.request import TokenLogprob, Update
from openllm.text.tokenizer import Tokenizer

LOWEST = -9999.0
"""Stands for minus infinity, which JSON cannot say."""


class Spelling:
    """Spells the tokens of one vocabulary."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._names = {index: name for name, index in tokenizer.controls.items()}

    def bytes_of(self, index: int) -> bytes:
        """The bytes of a token; a control token's are those of its name."""
        name = self._names.get(index)
        return self._tokenizer.token_bytes(index) if name is None else name.encode()

    def is_control(self, spelled: bytes) -> bool:
        """Whether bytes are the name of a control token, which adds nothing to a text."""
        return spelled.decode("utf-8", "replace") in self._tokenizer.controls

    def text(self, ids: Sequence[int]) -> str:
        """The text of tokens, control tokens included."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", "replace")

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._tokenizer.encode(text))

    def ids_of(self, markers: Sequence[str]) -> frozenset[int]:
        """The ids of those markers that are control tokens."""
        controls = self._tokenizer.controls
        return frozenset(controls[marker] for marker in markers if marker in controls)

    def marked(self, update: Update, wanted: frozenset[int]) -> str:
        """An update's text with the names of some control tokens, which decode to nothing."""
        if wanted.isdisjoint(update.token_ids):
            return update.text
        text, marked, after = update.text, "", []
        for index in reversed(update.token_ids):
            if index not in wanted:
                after.append(index)
                continue
            tail = self._tokenizer.decode(reversed(after), inside=True)
            if not text.endswith(tail):  # some of it is held back: it follows the marker
                tail = ""
            cut = len(text) - len(tail)
            marked, text, after = self._names[index] + text[cut:] + marked, text[:cut], []
        return text + marked


def _spelled(one: TokenLogprob, spelling: Spelling | None, index: int) -> bytes:
    """The bytes of a token; another server says them itself."""
    if one.spellings is not None:
        return one.spellings[index]
    assert spelling is not None, "only another server has no tokenizer here"
    return spelling.bytes_of(index)


def chat_logprob(one: TokenLogprob, spelling: Spelling | None) -> dict[str, Any]:
    """A log-probability as chats report it."""

    def entry(index: int, logprob: float) -> dict[str, Any]:
        raw = _spelled(one, spelling, index)
        token = raw.decode("utf-8", "replace")
        return {"token": token, "logprob": finite(logprob), "bytes": list(raw)}

    top = sorted(one.top.items(), key=lambda pair: -pair[1])
    shown = [entry(index, value) for index, value in top]
    return {**entry(one.token_id, one.logprob), "top_logprobs": shown}


def top_logprobs(one: TokenLogprob, spelling: Spelling | None) -> dict[str, float]:
    """The likeliest tokens as completions report them; the likelier of equal spellings."""
    found: dict[str, float] = {}
    for index, value in sorted(one.top.items(), key=lambda pair: -pair[1]):
        name = _spelled(one, spelling, index).decode("utf-8", "replace")
        found.setdefault(name, finite(value))
    return found


def token_of(one: TokenLogprob, spelling: Spelling | None) -> bytes:
    """The bytes of the token that a log-probability is of."""
    return _spelled(one, spelling, one.token_id)


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return max(logprob, LOWEST)


@lru_cache(maxsize=8)
def spelling_of(tokenizer: Tokenizer) -> Spelling:
    """The spelling of a vocabulary."""
    return Spelling(tokenizer)
