# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The leak report: what the sides of a prepared folder share, counted from the written files.

The count leans on nothing that made the split: it reads the files anew, hashes with another seed,
and finds near duplicates without MinHash. If two documents have Jaccard similarity s, at least the
share s of the shingles of each stands in the other; so a training document can have a near
duplicate among held-out text only where that share of its shingles occurs in held-out text at all,
and each such document is compared with every held-out document it shares one with.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from openllm.data.dedup import SHINGLE, jaccard
from openllm.data.leaks import LEAK, GramTable, gram_table, portions
from openllm.data.ngrams import Words, ngrams, split_words
from openllm.data.parallel import ordered_map
from openllm.data.split import title_key

_SEED = 1
_CHUNK_BYTES = 1 << 19
_EXAMPLES = 5


@dataclass
class LeakReport:
    """What two sides share; all zero is the proof of a clean split.

    Attributes:
        titles: titles that occur on both sides.
        exact: documents whose words equal those of a document of the other side.
        near: documents that are near duplicates of a document of the other side.
        grams: documents that share a 13-gram with the other side.
        examples: ids of a few such pairs.
    """

    titles: int = 0
    exact: int = 0
    near: int = 0
    grams: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Nothing is shared."""
        return not (self.titles or self.exact or self.near or self.grams)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "clean": self.clean}


@dataclass(frozen=True)
class _HeldOut:
    """What a worker compares training documents with."""

    path: Path
    offsets: np.ndarray
    titles: frozenset[int]
    wordings: frozenset[bytes]
    grams: GramTable
    shingles: GramTable
    threshold: float

    def record(self, number: int) -> dict[str, Any]:
        with open(self.path, "rb") as handle:
            handle.seek(self.offsets[number])
            return json.loads(handle.readline())


def recount(
    folder: Path, split: str, other: str, threshold: float, workers: int
) -> LeakReport:
    """Count what the documents of `split` share with those of `other`.

    Args:
        folder: a prepared folder.
        split: the side whose documents are looked through, as a rule "train".
        other: the side that is held in memory in portions, a held-out one.
        threshold: Jaccard similarity of near duplicates.
        workers: processes.
    """
    report = LeakReport()
    path = folder / f"{other}.jsonl"
    offsets, titles, wordings = _survey(path)
    seen_titles: set[int] = set()
    hits: dict[str, set[int]] = {"exact": set(), "near": set(), "grams": set()}
    for portion in portions(_texts(path)):
        held = _HeldOut(
            path, offsets, titles, wordings,
            gram_table(portion, LEAK, _SEED), gram_table(portion, SHINGLE, _SEED), threshold,
        )  # fmt: skip
        first = 0
        for found in ordered_map(_compare, _chunks(folder / f"{split}.jsonl"), workers, held):
            seen_titles |= found.titles
            for kind, number, example in found.hits:
                hits[kind].add(first + number)
                if example and len(report.examples) < _EXAMPLES:
                    report.examples.append(f"{kind}: {example}")
            first += found.documents
    report.titles = len(seen_titles)
    report.exact, report.near, report.grams = (len(hits[k]) for k in ("exact", "near", "grams"))
    return report


def _survey(path: Path) -> tuple[np.ndarray, frozenset[int], frozenset[bytes]]:
    offsets, titles, wordings = [0], set(), set()
    with open(path, "rb") as handle:
        for line in handle:
            offsets.append(offsets[-1] + len(line))
            record = json.loads(line)
            wordings.add(_wording(split_words([record["text"]]), 0))
            if record["title"]:
                titles.add(title_key(record["title"]))
    return np.array(offsets, dtype=np.int64), frozenset(titles), frozenset(wordings)


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    with open(path, "rb") as handle:
        for number, line in enumerate(handle):
            yield number, json.loads(line)["text"]


def _chunks(path: Path) -> Iterator[list[bytes]]:
    with open(path, "rb") as handle:
        while lines := handle.readlines(_CHUNK_BYTES):
            yield lines


def _wording(words: Words, number: int) -> bytes:
    """A digest of the words of a text alone: punctuation, spaces and letter case do not count."""
    own = words.hashes[words.bounds[number] : words.bounds[number + 1]]
    return hashlib.blake2b(own.tobytes(), digest_size=16).digest()


@dataclass
class _Found:
    documents: int
    titles: set[int] = field(default_factory=set)
    hits: list[tuple[str, int, str]] = field(default_factory=list)


def _compare(lines: list[bytes], held: _HeldOut) -> _Found:
    """Compare a chunk of documents with held-out text; runs in a worker."""
    records = [json.loads(line) for line in lines]
    found = _Found(len(records))
    words = split_words([record["text"] for record in records])
    grams = ngrams(words, LEAK, seed=_SEED)
    shared, owners = held.grams.find(grams.hashes)
    documents = np.searchsorted(grams.bounds, shared, side="right") - 1
    documents, first = np.unique(documents, return_index=True)
    for number, owner in zip(documents.tolist(), owners[first].tolist(), strict=True):
        example = f"{records[number]['id']} and {held.record(owner)['id']}"
        found.hits.append(("grams", number, example))
    shingles = ngrams(words, SHINGLE, seed=_SEED, whole=True)
    for number, record in enumerate(records):
        if record["title"] and (key := title_key(record["title"])) in held.titles:
            found.titles.add(key)
        if _wording(words, number) in held.wordings:
            found.hits.append(("exact", number, ""))
        own = shingles.hashes[shingles.bounds[number] : shingles.bounds[number + 1]]
        twin = _near_duplicate(np.unique(own), held)
        if twin is not None:
            found.hits.append(("near", number, f"{record['id']} and {held.record(twin)['id']}"))
    return found


def _near_duplicate(own: np.ndarray, held: _HeldOut) -> int | None:
    """The number of a held-out document that is similar enough to these shingles."""
    shared, _ = held.shingles.find(own)
    if len(shared) < held.threshold * len(own) or not len(own):
        return None
    for number in sorted(held.shingles.owners(own[shared])):
        words = split_words([held.record(number)["text"]])
        other = np.unique(ngrams(words, SHINGLE, seed=_SEED, whole=True).hashes)
        if jaccard(own, other) >= held.threshold:
            return number
    return None
