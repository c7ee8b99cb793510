# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The leak report: what the splits of a prepared folder share, counted from the written files.

The count relies on nothing that made the splits: it reads the files again, hashes with another
seed, and finds near duplicates without MinHash. If two documents have Jaccard similarity s, at
least a share s of the shingles of each is in the other; so a training document can have a near
duplicate in held-out text only if that share of its shingles occurs in held-out text at all.
Each such document is compared with every held-out document.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from openllm.core.log import progress
from openllm.data.parallel import metered, ordered_map
from openllm.data.prepare.dedup import SHINGLE
from openllm.data.prepare.leaks import (
    LEAK,
    MOST_CANDIDATES,
    GramFilter,
    confirm,
    leak_candidates,
    leak_filter,
)
from openllm.data.prepare.ngrams import Grams, Words, distinct, ngrams, split_words
from openllm.data.prepare.split import title_key

HELD_OUT = ("validation", "test")
_SEED = 1
_BATCH_BYTES = 1 << 19
_EXAMPLES = 5


@dataclass
class LeakReport:
    """What training and a held-out split share; all zeros prove a clean split.

    Attributes:
        titles: titles that occur in both splits.
        exact: training documents whose words equal those of a held-out document.
        near: training documents that are near duplicates of a held-out document.
        grams: training documents that share a 13-gram with a held-out document.
        examples: lines of the files where a few of them are.
    """

    titles: int
    exact: int
    near: int
    grams: int
    examples: list[str]

    @property
    def clean(self) -> bool:
        """Whether nothing is shared."""
        return not (self.titles or self.exact or self.near or self.grams)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "clean": self.clean}


@dataclass(frozen=True)
class _HeldOut:
    """What training documents are first compared with, in fixed memory except for two sets."""

    titles: frozenset[int]
    wordings: frozenset[bytes]
    leaks: GramFilter
    shingles: GramFilter


@dataclass
class _Suspects:
    """Training documents of one batch that may share something with one held-out split.

    Attributes:
        titles: hashes of shared titles.
        exact: numbers of documents with equal words.
        leaks: numbers of documents and hashes of 13-grams, to be confirmed.
        near: numbers of documents and their shingles, to be compared.
    """

    titles: set[int]
    exact: list[int]
    leaks: tuple[np.ndarray, np.ndarray]
    near: list[tuple[int, np.ndarray]]


def recount(folder: Path, threshold: float, workers: int) -> dict[str, LeakReport]:
    """Count what the training split of a prepared folder shares with each held-out split.

    Args:
        folder: a prepared folder.
        threshold: Jaccard similarity of near duplicates.
        workers: processes.

    Returns:
        "train / validation" and "train / test" with their counts.
    """
    paths = [folder / f"{split}.jsonl" for split in HELD_OUT]
    held = [_survey(path) for path in paths]
    counts = [_Count(path, threshold) for path in paths]
    train = folder / "train.jsonl"
    with progress("checking for leaks", train.stat().st_size / 1e6, "MB") as meter:
        batches = metered(_batches(train), meter, lambda batch: sum(map(len, batch[1])) / 1e6)
        for found in ordered_map(_suspects, batches, workers, held, threshold):
            for count, suspects in zip(counts, found, strict=True):
                count.take(suspects)
    return {
        f"train / {split}": count.report() for split, count in zip(HELD_OUT, counts, strict=True)
    }


def _batches(path: Path) -> Iterator[tuple[range, list[bytes]]]:
    """Numbers and lines of a file of documents, about `_BATCH_BYTES` at a time."""
    first = 0
    with open(path, "rb") as handle:
        while lines := handle.readlines(_BATCH_BYTES):
            yield range(first, first + len(lines)), lines
            first += len(lines)


def _texts(path: Path) -> Iterator[tuple[range, list[str]]]:
    for numbers, lines in _batches(path):
        yield numbers, [json.loads(line)["text"] for line in lines]


def _shingles(words: Words) -> Grams:
    """The distinct shingles of each text."""
    return distinct(ngrams(words, SHINGLE, seed=_SEED, whole=True))


def _wording(words: Words, number: int) -> bytes:
    """Digest of a text's words alone: punctuation, spaces and letter case do not count."""
    own = words.hashes[words.bounds[number] : words.bounds[number + 1]]
    return hashlib.blake2b(own.tobytes(), digest_size=16).digest()


def _survey(path: Path) -> _HeldOut:
    titles: set[int] = set()
    wordings: set[bytes] = set()
    shingles = GramFilter()
    for _, lines in _batches(path):
        records = [json.loads(line) for line in lines]
        titles |= {title_key(record["title"]) for record in records if record["title"]}
        words = split_words([record["text"] for record in records])
        wordings |= {_wording(words, number) for number in range(len(records))}
        shingles.add(_shingles(words).hashes)
    return _HeldOut(
        frozenset(titles), frozenset(wordings), leak_filter(_texts(path), _SEED), shingles
    )


def _suspects(
    batch: tuple[range, list[bytes]], held: Sequence[_HeldOut], threshold: float
) -> list[_Suspects]:
    """Compare a batch of training documents with each held-out split; runs in a worker."""
    numbers, lines = batch
    records = [json.loads(line) for line in lines]
    titles = {title_key(record["title"]) for record in records if record["title"]}
    words = split_words([record["text"] for record in records])
    wordings = [_wording(words, place) for place in range(len(records))]
    grams, shingles = ngrams(words, LEAK, seed=_SEED), _shingles(words)
    found = []
    for side in held:
        exact = [numbers[i] for i, wording in enumerate(wordings) if wording in side.wordings]
        places, hashes = leak_candidates(grams, side.leaks)
        leaks = np.asarray(numbers, dtype=np.int64)[places], hashes
        hits = side.shingles.find(shingles.hashes)
        shared = np.diff(np.searchsorted(hits, shingles.bounds))
        near = [
            (numbers[i], shingles.hashes[shingles.bounds[i] : shingles.bounds[i + 1]])
            for i in np.flatnonzero(shared >= threshold * np.diff(shingles.bounds))
        ]
        found.append(_Suspects(titles & side.titles, exact, leaks, near))
    return found


@dataclass
class _Count:
    """Collects the suspects of one held-out split and confirms them in batches."""

    path: Path
    threshold: float
    titles: set[int] = field(default_factory=set)
    exact: list[int] = field(default_factory=list)
    leaks: dict[int, int] = field(default_factory=dict)
    near: dict[int, int] = field(default_factory=dict)
    _leaks: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    _near: list[tuple[int, np.ndarray]] = field(default_factory=list)
    _waiting: int = 0

    def take(self, suspects: _Suspects) -> None:
        """Add the suspects of one batch."""
        self.titles |= suspects.titles
        self.exact += suspects.exact
        self._leaks.append(suspects.leaks)
        self._near += suspects.near
        self._waiting += len(suspects.leaks[1]) + sum(len(own) for _, own in suspects.near)
        if self._waiting > MOST_CANDIDATES:
            self._settle()

    def report(self) -> LeakReport:
        """The final counts."""
        self._settle()
        split = self.path.name
        examples = [
            f"{kind}: line {number + 1} of train.jsonl, line {twin + 1} of {split}"
            for kind, found in (("near duplicate", self.near), ("13-gram", self.leaks))
            for number, twin in sorted(found.items())[:_EXAMPLES]
        ]
        return LeakReport(
            len(self.titles), len(self.exact), len(self.near), len(self.leaks), examples
        )

    def _settle(self) -> None:
        if self._leaks:
            numbers, hashes = map(np.concatenate, zip(*self._leaks, strict=True))
            owners = confirm(hashes, _texts(self.path), _SEED)
            shared = owners >= 0
            self.leaks.update(zip(numbers[shared].tolist(), owners[shared].tolist(), strict=True))
        if self._near:
            self._compare()
        self._leaks, self._near, self._waiting = [], [], 0

    def _compare(self) -> None:
        """Compare each waiting document with each held-out document by Jaccard similarity."""
        numbers = np.array([number for number, _ in self._near])
        sizes = np.array([len(own) for _, own in self._near])
        hashes = np.concatenate([own for _, own in self._near])
        owners = np.repeat(np.arange(len(sizes)), sizes)
        order = np.argsort(hashes, kind="stable")
        hashes, owners = hashes[order], owners[order]
        for twins, texts in _texts(self.path):
            shingles = _shingles(split_words(texts))
            begins = np.searchsorted(hashes, shingles.hashes, side="left")
            ends = np.searchsorted(hashes, shingles.hashes, side="right")
            for place, twin in enumerate(twins):
                own = slice(shingles.bounds[place], shingles.bounds[place + 1])
                hits = np.flatnonzero(ends[own] > begins[own]) + own.start
                if not len(hits):
                    continue
                found = [owners[begins[hit] : ends[hit]] for hit in hits]
                shared = np.bincount(np.concatenate(found), minlength=len(sizes))
                similarity = shared / (sizes + (own.stop - own.start) - shared)
                for number in numbers[similarity >= self.threshold].tolist():
                    self.near[number] = twin
