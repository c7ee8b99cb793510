# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""How much of a text occurs verbatim in the training text.

The training tokens are streamed in chunks. Windows of one length are compared by a polynomial
hash, computed for all positions of a chunk at once; each hit is then verified token by token.
If a window of n tokens occurs, so do its shorter parts: the length of a sample's longest copy is
found bit by bit, from the largest power of two downwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# N windows of one length, P positions in a chunk of training tokens

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2**64
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))
_FILTER_BITS = 20


@dataclass(frozen=True)
class Copy:
    """The longest run of tokens that a sample shares with the training text.

    Attributes:
        length: tokens; 0 if no token of the sample occurs.
        start: where the run begins in the sample.
        position: where it begins in the training tokens.
    """

    length: int = 0
    start: int = 0
    position: int = 0


def longest_copies(
    samples: Sequence[np.ndarray], training: np.ndarray, *, chunk: int = 1 << 20
) -> list[Copy]:
    """Find the longest copy in each sample.

    Args:
        samples: token ids without bos and eos, so that no copy can span two documents.
        training: all training tokens, concatenated; may be a memory map.
        chunk: training tokens in memory at a time.
    """
    samples = [np.asarray(sample, np.int64) for sample in samples]
    best = [Copy()] * len(samples)
    longest = max((len(sample) for sample in samples), default=0)
    step = 1 << (longest.bit_length() - 1) if longest else 0
    while step:
        wanted: dict[int, list[int]] = {}
        for index, sample in enumerate(samples):
            length = best[index].length + step
            if length <= min(len(sample), len(training)):
                wanted.setdefault(length, []).append(index)
        for index, copy in _search(samples, wanted, training, chunk).items():
            best[index] = copy
        step //= 2
    return best


class _Windows:
    """All windows of one length in some samples."""

    def __init__(self, samples: Sequence[np.ndarray], owners: list[int], length: int) -> None:
        self.length = length
        self.owners = set(owners)
        self._places: dict[bytes, list[tuple[int, int]]] = {}
        hashes = []
        for owner in owners:
            sample = samples[owner]
            hashes.append(_Hashes(sample).windows(length))
            for start in range(len(sample) - length + 1):
                text = sample[start : start + length].tobytes()
                self._places.setdefault(text, []).append((owner, start))
        self._hashes = np.unique(np.concatenate(hashes))
        self._filter = np.zeros(1 << _FILTER_BITS, bool)
        self._filter[_high_bits(self._hashes)] = True

    def find(self, tokens: np.ndarray, hashes: "_Hashes", begin: int) -> dict[int, Copy]:
        """Samples with a window in `tokens`, which start at `begin` of the training text."""
        here = hashes.windows(self.length)
        maybe = np.flatnonzero(self._filter[_high_bits(here)])
        rank = np.searchsorted(self._hashes, here[maybe])
        rank = np.minimum(rank, len(self._hashes) - 1)
        equal = self._hashes[rank] == here[maybe]
        maybe, rank = maybe[equal], rank[equal]
        found: dict[int, Copy] = {}
        while len(maybe):
            # One verified place per hash is enough; one that fails is a hash collision.
            ranks, firsts = np.unique(rank, return_index=True)
            open_again = np.zeros(len(self._hashes), bool)
            for value, first in zip(ranks, firsts, strict=True):
                at = int(maybe[first])
                places = self._places.get(tokens[at : at + self.length].tobytes())
                open_again[value] = places is None
                for owner, start in places or ():
                    found.setdefault(owner, Copy(self.length, start, begin + at))
            keep = open_again[rank]
            keep[firsts] = False
            maybe, rank = maybe[keep], rank[keep]
        return {owner: copy for owner, copy in found.items() if owner in self.owners}


class _Hashes:
    """Prefix sums of token codes times powers of the base, which give each window's hash."""

    def __init__(self, tokens: np.ndarray) -> None:
        powers = np.full(len(tokens), _BASE)
        powers[:1] = 1
        np.cumprod(powers, out=powers)
        self._sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_codes(tokens) * powers)])
        self._undo = np.full(len(tokens), _INVERSE)
        self._undo[:1] = 1
        np.cumprod(self._undo, out=self._undo)

    def windows(self, length: int) -> np.ndarray:
        """Position-independent hash of each window of `length` tokens (modulo 2**64)."""
        count = len(self._sums) - length
        return (self._sums[length:] - self._sums[:-length]) * self._undo[:count]


def _codes(tokens: np.ndarray) -> np.ndarray:
    """Hash token ids to 64 bits with the finaliser of splitmix64."""
    codes = (tokens.astype(np.uint64) + np.uint64(1)) * _BASE
    codes = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ (codes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return codes ^ (codes >> np.uint64(31))


def _high_bits(hashes: np.ndarray) -> np.ndarray:
    return (hashes >> np.uint64(64 - _FILTER_BITS)).astype(np.int64)


def _search(
    samples: Sequence[np.ndarray],
    wanted: dict[int, list[int]],
    training: np.ndarray,
    chunk: int,
) -> dict[int, Copy]:
    """Find one copy for each sample with a window of the wanted length in the training text."""
    tables = [_Windows(samples, owners, length) for length, owners in wanted.items()]
    found: dict[int, Copy] = {}
    overlap = max(wanted, default=1) - 1
    for begin in range(0, len(training), chunk):
        tables = [table for table in tables if not table.owners <= found.keys()]
        if not tables:
            break
        tokens = np.asarray(training[begin : begin + chunk + overlap]).astype(np.int64)
        hashes = _Hashes(tokens)
        for table in tables:
            if table.length <= len(tokens):
                found = table.find(tokens, hashes, begin) | found
    return found
