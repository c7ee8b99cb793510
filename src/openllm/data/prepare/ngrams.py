# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Words and word n-grams of many texts at once, as 64-bit hashes, for every script.

A *word* is a run of letters, marks and digits. Scripts written without spaces have no such runs, so
their characters count individually: two Han or kana characters, or four characters of Thai, Lao,
Khmer or Burmese, weigh as much as one word. Weights are in quarters of a word, and an n-gram is
the shortest stretch from a given character or word that weighs n words.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

SPACED, IDEOGRAPH, UNSPACED = 1, 2, 3
"""Kinds of word characters; 0 is anything between words."""

_WEIGHTS = np.array([0, 4, 2, 1], dtype=np.int64)
_IDEOGRAPHS = (
    (0x3040, 0x3130),  # kana, bopomofo
    (0x31A0, 0x3200),
    (0x3400, 0x4DC0),
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0xFF66, 0xFFA0),
    (0x1B000, 0x1B170),
    (0x20000, 0x33480),
)
_UNSPACED = (
    (0x0E00, 0x0F00),  # Thai, Lao
    (0x1000, 0x10A0),  # Burmese
    (0x1780, 0x1800),  # Khmer
    (0x1950, 0x1AB0),  # Tai scripts
    (0x1B00, 0x1B80),  # Balinese
    (0xA980, 0xAAE0),  # Javanese, Burmese extensions, Cham, Tai Viet
)
_LAST_SCRIPT = 0x33480  # beyond it, only the marks of _MARKS belong to words
_MARKS = (0xE0100, 0xE01F0)

_BASE = 0x9E3779B97F4A7C15  # odd, so that its powers are never zero and have inverses mod 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)


@dataclass(frozen=True)
class Words:
    """The words of a batch of texts, end to end.

    Attributes:
        hashes: uint64 [W].
        weights: int64 [W], quarters of a word.
        starts: int64 [W], first character of each word in `text`.
        ends: int64 [W], character after the last.
        bounds: int64 [D + 1], words of document d are `bounds[d]:bounds[d + 1]`.
        text: the lower-cased texts, joined.
    """

    hashes: np.ndarray
    weights: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    bounds: np.ndarray
    text: str

    def counts(self) -> np.ndarray:
        """Whole words of each document, int64 [D]."""
        total = np.concatenate(([0], np.cumsum(self.weights)))
        return (total[self.bounds[1:]] - total[self.bounds[:-1]]) // 4


@dataclass(frozen=True)
class Grams:
    """The n-grams of a batch of texts.

    Attributes:
        hashes: uint64 [G].
        bounds: int64 [D + 1], n-grams of document d are `bounds[d]:bounds[d + 1]`.
    """

    hashes: np.ndarray
    bounds: np.ndarray


@cache
def _kinds() -> np.ndarray:
    """Kind of each code point, uint8 [0x110000]."""
    table = np.zeros(0x110000, dtype=np.uint8)
    is_word = [unicodedata.category(chr(code))[0] in "LMN" for code in range(_LAST_SCRIPT)]
    table[:_LAST_SCRIPT] = is_word
    table[slice(*_MARKS)] = SPACED
    for ranges, kind in ((_IDEOGRAPHS, IDEOGRAPH), (_UNSPACED, UNSPACED)):
        for first, end in ranges:
            table[first:end] *= kind
    return table


@cache
def _powers(base: int, count: int) -> np.ndarray:
    """`base ** k mod 2**64` for k below `count`, uint64."""
    powers = np.full(count, base, dtype=np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _power_table(base: int, count: int) -> np.ndarray:
    """At least `count` powers; lengths are rounded up so that few tables are built."""
    return _powers(base, 1 << max(12, (count - 1).bit_length()))


def mix(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Scramble uint64 values so that all bits depend on all bits (splitmix64)."""
    values = values + np.uint64((seed * _BASE) % (1 << 64))
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def split_words(texts: Sequence[str]) -> Words:
    """Find and hash the words of `texts`; letter case is ignored."""
    lowered = [text.lower() for text in texts]
    text = "\n".join(lowered)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    kinds = _kinds()[codes]
    inside = kinds != 0
    begins, closes = inside.copy(), inside
    joined = (kinds[1:] == SPACED) & (kinds[:-1] == SPACED)
    begins[1:] &= ~joined
    closes[:-1] &= ~joined
    starts, ends = np.flatnonzero(begins), np.flatnonzero(closes) + 1
    ends_of_texts = np.cumsum([len(item) + 1 for item in lowered])
    bounds = np.concatenate(([0], np.searchsorted(starts, ends_of_texts)))
    hashes = _stretches(codes, starts, ends)
    return Words(mix(hashes), _WEIGHTS[kinds[starts]], starts, ends, bounds, text)


def _stretches(values: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Rabin-Karp hash of each `values[first:last]`: the sum of value * base ** place, mod 2**64."""
    count = len(values)
    sums = np.zeros(count + 1, dtype=np.uint64)
    np.cumsum(values * _power_table(_BASE, count + 1)[:count], out=sums[1:])
    return (sums[last] - sums[first]) * _power_table(_INVERSE, count + 1)[first]


def ngrams(words: Words, n: int, *, seed: int = 0, whole: bool = False) -> Grams:
    """All n-grams of each text; none spans two texts.

    Args:
        words: the batch.
        n: length in words.
        seed: selects the hash function.
        whole: a text shorter than n words gives one n-gram, the whole text.
    """
    count = len(words.hashes)
    weight = np.concatenate(([0], np.cumsum(words.weights)))
    first = np.arange(count)
    sizes = np.diff(words.bounds)
    limit = np.repeat(words.bounds[1:], sizes)
    spaced = weight[-1] == 4 * count
    last = first + n if spaced else np.searchsorted(weight, weight[:-1] + 4 * n)
    valid = last <= limit
    if whole:
        begins = words.bounds[:-1][sizes > 0]
        short = begins[~valid[begins]]
        last[short], valid[short] = limit[short], True
    first, last = first[valid], last[valid]
    hashes = _stretches(words.hashes, first, last)
    bounds = np.concatenate(([0], np.cumsum(valid)))[words.bounds]
    return Grams(mix(hashes, seed + 1), bounds)


def gram_text(words: Words, first: int, n: int) -> str:
    """The n-gram that begins at word `first`, as written in the text."""
    last = first + int(np.searchsorted(np.cumsum(words.weights[first:]), 4 * n))
    return words.text[words.starts[first] : words.ends[last]]


def distinct(grams: Grams) -> Grams:
    """The distinct n-grams of each text, sorted, by the upper 44 bits of their hashes.

    The text's number replaces the other bits, so that one sort serves all texts.
    """
    texts = len(grams.bounds) - 1
    owner = np.repeat(np.arange(texts, dtype=np.uint64), np.diff(grams.bounds))
    keys = np.sort((owner << np.uint64(44)) | (grams.hashes >> np.uint64(20)))
    new = np.ones(len(keys), dtype=bool)
    new[1:] = keys[1:] != keys[:-1]
    keys = keys[new]
    begins = np.arange(texts + 1, dtype=np.uint64) << np.uint64(44)
    return Grams(keys << np.uint64(20), np.searchsorted(keys, begins))
