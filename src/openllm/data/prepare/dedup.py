# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Exact and near duplicates.

Near duplicates are found by MinHash with banding (Broder 1997; Leskovec et al., "Mining of Massive
Datasets", ch. 3) over word 5-grams: documents that agree in one of 32 bands of 4 minima are
compared, first by their signatures, then by the true Jaccard similarity of their texts. A pair of
similarity 0.8 agrees in no band with probability (1 - 0.8**4)**32 = 5e-8, one of 0.7 with 2e-4.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from openllm.data.prepare.ngrams import Grams, mix, ngrams, split_words

SHINGLE = 5
"""Words per n-gram in document comparisons."""
BANDS, ROWS = 32, 4
MINIMA = BANDS * ROWS
_SLACK = 0.12  # over three standard deviations of a similarity of 0.8 estimated from 128 minima
_REMEMBERED = 100_000  # pairs whose comparison is cached
_MOST_COMPARED = 64  # distinct documents of one band value to compare a further one with


@cache
def _hash_functions() -> tuple[np.ndarray, np.ndarray]:
    """Odd factors and offsets of the hash functions x -> a * x + b mod 2**32."""
    draws = mix(np.arange(2 * MINIMA, dtype=np.uint64), seed=5).astype(np.uint32)
    return draws[:MINIMA] | np.uint32(1), draws[MINIMA:]


def minhash(shingles: Grams) -> tuple[np.ndarray, np.ndarray]:
    """Signatures and band values of documents that have at least one shingle each.

    Returns:
        The lowest byte of each minimum, uint8 [D, MINIMA], and one value per band,
        uint64 [BANDS, D].
    """
    values = (shingles.hashes >> np.uint64(32)).astype(np.uint32)
    begins = shingles.bounds[:-1]
    minima = np.empty((MINIMA, len(begins)), dtype=np.uint32)
    hashed = np.empty_like(values)
    for k, (factor, offset) in enumerate(zip(*_hash_functions(), strict=True)):
        np.multiply(values, factor, out=hashed)
        np.add(hashed, offset, out=hashed)
        np.minimum.reduceat(hashed, begins, out=minima[k])
    pairs = minima.reshape(BANDS, ROWS, -1).astype(np.uint64)
    bands = np.zeros((BANDS, len(begins)), dtype=np.uint64)
    for row in range(ROWS):
        bands = mix(bands + pairs[:, row])
    return minima.T.astype(np.uint8), bands


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Jaccard similarity of two sets of distinct shingle hashes."""
    both = len(np.intersect1d(first, second, assume_unique=True))
    return both / max(1, len(first) + len(second) - both)


def shingle_set(text: str) -> np.ndarray:
    """Distinct shingle hashes of a text, sorted."""
    return np.unique(ngrams(split_words([text]), SHINGLE, whole=True).hashes)


def exact_duplicates(hashes: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """For each document, the one it duplicates, or -1.

    Args:
        hashes: uint64 [N, 2], 128 bits of each text.
        rank: of equal documents, the one with the lowest rank is kept.
    """
    order = np.lexsort((rank, hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    same = np.zeros(len(order), dtype=bool)
    same[1:] = (ordered[1:] == ordered[:-1]).all(axis=1)
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    kept = np.full(len(order), -1, dtype=np.int64)
    kept[order[same]] = order[first[same]]
    return kept


class Clusters:
    """Near-duplicate clusters: connected components, grown pair by pair (union-find)."""

    def __init__(self, count: int, rank: np.ndarray) -> None:
        self.parent = np.arange(count)
        self._rank = rank

    def root(self, i: int) -> int:
        """The document with the lowest rank in the cluster of i."""
        parent = self.parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    def join(self, i: int, j: int) -> None:
        """Merge the clusters of i and j."""
        i, j = self.root(i), self.root(j)
        if self._rank[j] < self._rank[i]:
            i, j = j, i
        self.parent[j] = i

    def roots(self) -> np.ndarray:
        """The root of each document, int64 [N]."""
        parent = self.parent
        while True:
            above = parent[parent]
            if (above == parent).all():
                return parent
            parent = above


def near_duplicates(
    folder: Path,
    alive: np.ndarray,
    rank: np.ndarray,
    threshold: float,
    read_text: Callable[[int], str],
) -> np.ndarray:
    """For each document, the near duplicate kept instead, or -1.

    Args:
        folder: holds `signatures.u8` and `band-NN.u64` of all documents.
        alive: bool [N]; other documents are ignored.
        rank: the document with the lowest rank in a cluster is kept.
        threshold: lowest Jaccard similarity of shingles at which two documents are near duplicates.
        read_text: returns the text of a document.
    """
    clusters = Clusters(len(alive), rank)
    members = np.flatnonzero(alive)
    signatures = np.memmap(folder / "signatures.u8", np.uint8, "r").reshape(-1, MINIMA)
    compared: dict[tuple[int, int], bool] = {}

    def similar(i: int, j: int) -> bool:
        if np.mean(signatures[i] == signatures[j]) < threshold - _SLACK:
            return False
        pair = (min(i, j), max(i, j))
        if pair not in compared:
            similarity = jaccard(shingle_set(read_text(i)), shingle_set(read_text(j)))
            compared[pair] = similarity >= threshold
        return compared[pair]

    for band in range(BANDS):
        if len(compared) > _REMEMBERED:
            compared.clear()
        values = np.fromfile(folder / f"band-{band:02d}.u64", dtype=np.uint64)[members]
        order = np.argsort(values, kind="stable")
        values = values[order]
        edges = np.flatnonzero(np.diff(values)) + 1
        begins = np.concatenate(([0], edges))
        ends = np.concatenate((edges, [len(values)]))
        for k in np.flatnonzero(ends - begins > 1):
            _join_run(members[order[begins[k] : ends[k]]].tolist(), clusters, similar)
    roots = clusters.roots()
    return np.where(roots == np.arange(len(roots)), -1, roots)


def _join_run(run: list[int], clusters: Clusters, similar: Callable[[int, int], bool]) -> None:
    """Join the near duplicates among documents that agree in one band."""
    distinct: list[int] = []
    for document in run:
        root = clusters.root(document)
        for other in distinct[-_MOST_COMPARED:]:
            if clusters.root(other) == root or similar(document, other):
                clusters.join(document, other)
                break
        else:
            distinct.append(document)
