# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Overlap of training text with held-out text, by 13-grams (arXiv:2005.14165, app. C).

Memory grows with neither: a filter of fixed size holds the n-grams of held-out text, each training
text is looked up in it once, and the few n-grams that may match are then confirmed against the
held-out text itself.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from openllm.data.prepare.ngrams import Grams, gram_text, ngrams, split_words

LEAK = 13
"""Words per n-gram that training may not share with held-out text."""
MOST_CANDIDATES = 500_000
"""Most n-grams waiting to be confirmed; more are confirmed in several rounds."""
_FILTER_BITS = 26
_FACTORS = np.array([1, 0x9E3779B97F4A7C15], dtype=np.uint64)

Numbered = tuple[Sequence[int], Sequence[str]]
"""Some texts and their numbers."""


class GramFilter:
    """A Bloom filter of n-grams: no false negatives, few false positives (Bloom 1970).

    With two of 2**26 bits per n-gram, 32 MB of held-out English text give 3 % false positives.
    """

    def __init__(self) -> None:
        self._bits = np.zeros(1 << (_FILTER_BITS - 3), dtype=np.uint8)

    @staticmethod
    def _places(hashes: np.ndarray, turn: int) -> np.ndarray:
        """The first or the second bit of each hash."""
        return (hashes * _FACTORS[turn] >> np.uint64(64 - _FILTER_BITS)).astype(np.int64)

    def add(self, hashes: np.ndarray) -> None:
        """Add n-grams to the set."""
        for turn in range(len(_FACTORS)):
            place = self._places(hashes, turn)
            np.bitwise_or.at(self._bits, place >> 3, (1 << (place & 7)).astype(np.uint8))

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Indices of the n-grams that may be in the set."""
        found = np.arange(len(hashes))
        for turn in range(len(_FACTORS)):
            place = self._places(hashes[found], turn)
            found = found[(self._bits[place >> 3] >> (place & 7).astype(np.uint8)) & 1 == 1]
        return found


def leak_filter(batches: Iterable[Numbered], seed: int = 0) -> GramFilter:
    """A filter of the 13-grams of held-out texts."""
    held = GramFilter()
    for _, texts in batches:
        held.add(ngrams(split_words(texts), LEAK, seed=seed).hashes)
    return held


def leak_candidates(grams: Grams, held: GramFilter) -> tuple[np.ndarray, np.ndarray]:
    """13-grams that may be in a filter: text index and hash of each."""
    found = held.find(grams.hashes)
    return np.searchsorted(grams.bounds, found, side="right") - 1, grams.hashes[found]


def confirm(hashes: np.ndarray, batches: Iterable[Numbered], seed: int = 0) -> np.ndarray:
    """For each hash, the number of a held-out text that has this 13-gram, or -1; int64."""
    if not len(hashes):
        return np.zeros(0, dtype=np.int64)
    wanted, where = np.unique(hashes, return_inverse=True)
    owners = np.full(len(wanted), -1, dtype=np.int64)
    for numbers, texts in batches:
        grams = ngrams(split_words(texts), LEAK, seed=seed)
        place = np.minimum(np.searchsorted(wanted, grams.hashes), len(wanted) - 1)
        hits = np.flatnonzero(wanted[place] == grams.hashes)
        text = np.searchsorted(grams.bounds, hits, side="right") - 1
        owners[place[hits]] = np.asarray(numbers, dtype=np.int64)[text]
    return owners[where]


def find_leaked(
    held: Sequence[Sequence[str]], training: Iterable[Sequence[str]]
) -> list[np.ndarray]:
    """Which held-out texts share a 13-gram with training text; exact, for texts that fit in memory.

    A text of fewer words counts as shared if a training text has the same words and no others.

    Args:
        held: collections of held-out texts.
        training: the training texts in batches, which are read once.

    Returns:
        For each collection, bool [D].
    """
    grams = [ngrams(split_words(texts), LEAK, whole=True) for texts in held]
    wanted = np.unique(np.concatenate([own.hashes for own in grams] or [np.zeros(0, np.uint64)]))
    shared = np.zeros(len(wanted), dtype=bool)
    for texts in training if len(wanted) else ():
        found = ngrams(split_words(texts), LEAK, whole=True).hashes
        place = np.minimum(np.searchsorted(wanted, found), len(wanted) - 1)
        shared[place[wanted[place] == found]] = True
    leaked = []
    for own in grams:
        hits = shared[np.searchsorted(wanted, own.hashes)]
        counts = np.concatenate(([0], np.cumsum(hits)))
        leaked.append(counts[own.bounds[1:]] > counts[own.bounds[:-1]])
    return leaked


def shared_phrase(text: str, other: str) -> str:
    """The first 13-gram of `text` that is also in `other`, or ""."""
    words = split_words([text])
    shared = np.isin(ngrams(words, LEAK).hashes, ngrams(split_words([other]), LEAK).hashes)
    return " ".join(gram_text(words, int(np.argmax(shared)), LEAK).split()) if shared.any() else ""
