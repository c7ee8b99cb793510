# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Text that training shares with held-out text, by 13-grams (arXiv:2005.14165, app. C)."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from openllm.data.dedup import SHINGLE
from openllm.data.ngrams import gram_text, ngrams, split_words

LEAK = 13
"""Words in an n-gram that training may not share with held-out text."""
TABLE_GRAMS = 1_000_000
"""n-grams of held-out text held in memory at a time; more take another pass over training text."""
_FILTER_BITS = 23


class GramTable:
    """A set of n-gram hashes with the document each comes from."""

    def __init__(self, hashes: np.ndarray, owners: np.ndarray) -> None:
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._owners = hashes[order], owners[order]
        # Most look-ups end at this filter, which fits the cache better than a binary search.
        self._filter = np.zeros(1 << _FILTER_BITS, dtype=bool)
        self._filter[self._slot(hashes)] = True

    def __len__(self) -> int:
        return len(self._hashes)

    @staticmethod
    def _slot(hashes: np.ndarray) -> np.ndarray:
        return (hashes >> np.uint64(64 - _FILTER_BITS)).astype(np.int64)

    def owners(self, hashes: np.ndarray) -> set[int]:
        """All documents that hold one of `hashes`."""
        begins = np.searchsorted(self._hashes, hashes, side="left")
        ends = np.searchsorted(self._hashes, hashes, side="right")
        found = [self._owners[a:b] for a, b in zip(begins, ends, strict=True)]
        return set(np.concatenate(found).tolist()) if found else set()

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of `hashes` are in the set, as indices, and one owner of each."""
        maybe = np.flatnonzero(self._filter[self._slot(hashes)])
        wanted = hashes[maybe]
        place = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        hit = self._hashes[place] == wanted if len(self._hashes) else np.zeros(0, dtype=bool)
        return maybe[hit], self._owners[place[hit]]


def gram_table(texts: Sequence[tuple[int, str]], n: int, seed: int = 0) -> GramTable:
    """The n-grams of numbered texts; a text shorter than the length of a shingle counts whole."""
    found = [
        ngrams(split_words([text]), n, seed=seed, whole=n == SHINGLE).hashes for _, text in texts
    ]
    numbers = np.array([number for number, _ in texts], dtype=np.int32)
    owners = np.repeat(numbers, [len(grams) for grams in found])
    hashes = np.concatenate(found)
    del found
    return GramTable(hashes, owners)


def portions(texts: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Cut numbered texts into lists of about `TABLE_GRAMS` words each."""
    portion: list[tuple[int, str]] = []
    words = 0
    for number, text in texts:
        portion.append((number, text))
        words += int(split_words([text]).bounds[-1])
        if words >= TABLE_GRAMS:
            yield portion
            portion, words = [], 0
    if portion:
        yield portion


def shared_documents(texts: Sequence[str], table: GramTable) -> list[tuple[int, int]]:
    """The texts that share a 13-gram with a table, each with the number of one owner."""
    grams = ngrams(split_words(texts), LEAK)
    found, owners = table.find(grams.hashes)
    documents = np.searchsorted(grams.bounds, found, side="right") - 1
    documents, first = np.unique(documents, return_index=True)
    return list(zip(documents.tolist(), owners[first].tolist(), strict=True))


def shared_phrase(text: str, other: str) -> str:
    """The first 13-gram of `text` that stands in `other` too, or ""."""
    words = split_words([text])
    grams = ngrams(words, LEAK)
    shared = np.isin(grams.hashes, ngrams(split_words([other]), LEAK).hashes)
    if not shared.any():
        return ""
    i = int(np.argmax(shared))
    return " ".join(gram_text(words, grams.first[i], grams.last[i]).split())
