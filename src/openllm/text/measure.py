# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""How well a vocabulary fits a text: bytes per token and fertility (arXiv:2012.15613)."""

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass

from openllm.text.controls import NUM_BYTES, NUM_CONTROLS
from openllm.text.tokenizer import Tokenizer

OUR_BYTES = range(NUM_CONTROLS, NUM_CONTROLS + NUM_BYTES)
"""Ids of single bytes in the vocabularies made here."""

_LETTER = re.compile(r"[^\W\d_]")
# Scripts without spaces between words: Thai, Lao, Tibetan, Myanmar, Khmer, Tai, Balinese,
# Kana, Bopomofo, Han, Yi, Javanese, and the supplementary ideographic planes.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f"
    "\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf"
    "\ua980-\ua9df\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff]"
)


@dataclass
class Fit:
    """Counts over texts of one language or source."""

    documents: int = 0
    bytes: int = 0
    characters: int = 0
    words: int = 0
    tokens: int = 0
    byte_tokens: int = 0
    letters: int = 0
    unspaced_letters: int = 0

    def add(self, text: str, ids: list[int], byte_ids: Container[int] = OUR_BYTES) -> None:
        """Add one text and its ids to the counts; `byte_ids` are those of single bytes."""
        self.documents += 1
        self.bytes += len(text.encode("utf-8", "replace"))
        self.characters += len(text)
        self.words += len(text.split())
        self.tokens += len(ids)
        self.byte_tokens += sum(index in byte_ids for index in ids)
        self.letters += len(_LETTER.findall(text))
        self.unspaced_letters += len(_UNSPACED.findall(text))

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes per token; more is better."""
        return self.bytes / max(1, self.tokens)

    @property
    def tokens_per_word(self) -> float | None:
        """Fertility; None for scripts without spaces between words."""
        spaced = self.words and 2 * self.unspaced_letters < self.letters
        return self.tokens / self.words if spaced else None

    @property
    def tokens_per_character(self) -> float:
        """Tokens per character (code point)."""
        return self.tokens / max(1, self.characters)

    @property
    def byte_share(self) -> float:
        """Share of tokens that are single bytes, for characters without a token."""
        return self.byte_tokens / max(1, self.tokens)

    def facts(self) -> dict[str, float | int | None]:
        """Counts and ratios by name."""
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "characters": self.characters,
            "words": self.words,
            "tokens": self.tokens,
            "bytes_per_token": self.bytes_per_token,
            "tokens_per_word": self.tokens_per_word,
            "tokens_per_character": self.tokens_per_character,
            "byte_token_share": self.byte_share,
        }


def fit_by_group(tokenizer: Tokenizer, texts: Iterable[tuple[str, str]]) -> dict[str, Fit]:
    """Measure `(group, text)` pairs; one text is in memory at a time."""
    groups: dict[str, Fit] = {}
    for group, text in texts:
        groups.setdefault(group, Fit()).add(text, tokenizer.encode(text), tokenizer.byte_ids)
    return groups


def rare_share(tokenizer: Tokenizer, texts: Iterable[str], times: int) -> float:
    """Share of the vocabulary (except control tokens and bytes) seen fewer than `times` times."""
    counts = [0] * tokenizer.vocab_size
    for text in texts:
        for index in tokenizer.encode(text):
            counts[index] += 1
    others = {*tokenizer.controls.values(), *tokenizer.byte_ids, *tokenizer.banned_ids}
    pieces = [count for index, count in enumerate(counts) if index not in others]
    return sum(count < times for count in pieces) / max(1, len(pieces))
