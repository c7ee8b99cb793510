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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openllm.data.dedup import SHINGLE, jaccard
from openllm.data.leaks import LEAK, GramTable, gram_table, portions
from openllm.data.ngrams import Words, ngrams, split_words
from openllm.data.parallel import ordered_map
from openllm.data.split import title_key

HELD_OUT = ("validation", "test")
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

    titles: int
    exact: int
    near: int
    grams: int
    examples: list[str]

    @property
    def clean(self) -> bool:
        """Nothing is shared."""
        return not (self.titles or self.exact or self.near or self.grams)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "clean": self.clean}


@dataclass(frozen=True)
class _HeldOut:
    """What a worker compares training documents with: a portion of the held-out documents.

    These are numbered through validation and test; `ends` holds the number after the last of each.
    """

    folder: Path
    offsets: np.ndarray
    ends: tuple[int, ...]
    grams: GramTable
    shingles: GramTable
    threshold: float

    def side(self, number: int) -> int:
        """Index into `HELD_OUT` of the side of a document."""
        return int(np.searchsorted(self.ends, number, side="right"))

    def record(self, number: int) -> dict[str, Any]:
        """The document as written."""
        with open(self.folder / f"{HELD_OUT[self.side(number)]}.jsonl", "rb") as handle:
            handle.seek(self.offsets[number])
            return json.loads(handle.readline())


@dataclass(frozen=True)
class _Names:
    """Titles and wordings of one side."""

    titles: frozenset[int]
    wordings: frozenset[bytes]


def recount(folder: Path, threshold: float, workers: int) -> dict[str, LeakReport]:
    """Count what the training side of a prepared folder shares with each held-out side.

    Args:
        folder: a prepared folder.
        threshold: Jaccard similarity of near duplicates.
        workers: processes.

    Returns:
        "train / validation" and "train / test" with their counts.
    """
    offsets, ends, names = _survey(folder)
    titles: list[set[int]] = [set() for _ in HELD_OUT]
    hits: list[dict[str, dict[int, str]]] = [
        {"exact": {}, "near": {}, "grams": {}} for _ in HELD_OUT
    ]
    for portion in portions(_texts(folder)):
        grams, shingles = gram_table(portion, LEAK, _SEED), gram_table(portion, SHINGLE, _SEED)
        held = _HeldOut(folder, offsets, ends, grams, shingles, threshold)
        first = 0
        chunks = _chunks(folder / "train.jsonl")
        for found in ordered_map(_compare, chunks, workers, held, names):
            for side, shared in enumerate(found.titles):
                titles[side] |= shared
            for kind, side, number, example in found.hits:
                hits[side][kind].setdefault(first + number, example)
            first += found.documents
    return {
        f"train / {name}": LeakReport(
            titles=len(titles[side]),
            exact=len(hits[side]["exact"]),
            near=len(hits[side]["near"]),
            grams=len(hits[side]["grams"]),
            examples=[
                f"{kind}: {example}"
                for kind, found in hits[side].items()
                for example in list(found.values())[:_EXAMPLES]
            ],
        )
        for side, name in enumerate(HELD_OUT)
    }


def _survey(folder: Path) -> tuple[np.ndarray, tuple[int, ...], tuple[_Names, ...]]:
    """Offsets of the held-out lines, where each side ends, and its titles and wordings."""
    offsets: list[int] = []
    ends, names = [], []
    for split in HELD_OUT:
        titles, wordings, offset = set(), set(), 0
        with open(folder / f"{split}.jsonl", "rb") as handle:
            for line in handle:
                offsets.append(offset)
                offset += len(line)
                record = json.loads(line)
                wordings.add(_wording(split_words([record["text"]]), 0))
                if record["title"]:
                    titles.add(title_key(record["title"]))
        ends.append(len(offsets))
        names.append(_Names(frozenset(titles), frozenset(wordings)))
    return np.array(offsets, dtype=np.int64), tuple(ends), tuple(names)


def _texts(folder: Path) -> Iterator[tuple[int, str]]:
    number = 0
    for split in HELD_OUT:
        with open(folder / f"{split}.jsonl", "rb") as handle:
            for line in handle:
                yield number, json.loads(line)["text"]
                number += 1


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
    """What one chunk of training documents shares with held-out text.

    Attributes:
        documents: how many documents the chunk has.
        titles: for each held-out side, hashes of shared titles.
        hits: kind, held-out side, number within the chunk, and an example.
    """

    documents: int
    titles: tuple[set[int], ...]
    hits: list[tuple[str, int, int, str]]


def _compare(lines: list[bytes], held: _HeldOut, names: Sequence[_Names]) -> _Found:
    """Compare a chunk of training documents with held-out text; runs in a worker."""
    records = [json.loads(line) for line in lines]
    found = _Found(len(records), tuple(set() for _ in names), [])
    words = split_words([record["text"] for record in records])
    for number, record in enumerate(records):
        key = title_key(record["title"]) if record["title"] else None
        wording = _wording(words, number)
        for side, known in enumerate(names):
            if key in known.titles:
                found.titles[side].add(key)
            if wording in known.wordings:
                found.hits.append(("exact", side, number, record["id"]))

    def note(kind: str, number: int, twin: int) -> None:
        example = f"{records[number]['id']} and {held.record(twin)['id']}"
        found.hits.append((kind, held.side(twin), number, example))

    grams = ngrams(words, LEAK, seed=_SEED)
    shared, _ = held.grams.find(grams.hashes)
    owner = np.searchsorted(grams.bounds, shared, side="right") - 1
    for number in np.unique(owner).tolist():
        for twin in sorted(held.grams.owners(grams.hashes[shared[owner == number]])):
            note("grams", number, twin)
    shingles = ngrams(words, SHINGLE, seed=_SEED, whole=True)
    for number in range(len(records)):
        own = np.unique(shingles.hashes[shingles.bounds[number] : shingles.bounds[number + 1]])
        for twin in _near_duplicates(own, held):
            note("near", number, twin)
    return found


def _near_duplicates(own: np.ndarray, held: _HeldOut) -> Iterator[int]:
    """The held-out documents that are similar enough to these shingles."""
    shared, _ = held.shingles.find(own)
    if not len(own) or len(shared) < held.threshold * len(own):
        return
    for number in sorted(held.shingles.owners(own[shared])):
        words = split_words([held.record(number)["text"]])
        other = np.unique(ngrams(words, SHINGLE, seed=_SEED, whole=True).hashes)
        if jaccard(own, other) >= held.threshold:
            yield number
