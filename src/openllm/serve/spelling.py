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

    def token(self, index: int) -> str:
        """The text of a token, U+FFFD for a part of a character."""
        return self.bytes_of(index).decode("utf-8", "replace")

    def text(self, ids: Sequence[int]) -> str:
        """The text of tokens, control tokens included."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", "replace")

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

    def chat_logprob(self, one: TokenLogprob) -> dict[str, Any]:
        """A log-probability as chats report it."""
        top = sorted(one.top.items(), key=lambda pair: -pair[1])
        shown = [self._entry(index, value) for index, value in top]
        return {**self._entry(one.token_id, one.logprob), "top_logprobs": shown}

    def _entry(self, index: int, logprob: float) -> dict[str, Any]:
        raw = self.bytes_of(index)
        token = raw.decode("utf-8", "replace")
        return {"token": token, "logprob": finite(logprob), "bytes": list(raw)}

    def top(self, one: TokenLogprob) -> dict[str, float]:
        """The likeliest tokens as completions report them; the likelier of equal spellings."""
        found: dict[str, float] = {}
        for index, value in sorted(one.top.items(), key=lambda pair: -pair[1]):
            found.setdefault(self.token(index), finite(value))
        return found


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return max(logprob, LOWEST)


@lru_cache(maxsize=8)
def spelling_of(tokenizer: Tokenizer) -> Spelling:
    """The spelling of a vocabulary."""
    return Spelling(tokenizer)
