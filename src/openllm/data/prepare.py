# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Sources in, prepared folder out: the steps of `openllm data prepare`, one after the other.

    1. read, clean, judge, hash     every record, in chunks, by all workers
    2. exact and near duplicates    hashes and bands, from disk
    3. split                        whole articles, drawn by hash
    4. leaks                        training documents that share a 13-gram with held-out text go
    5. write                        splits, dropped.jsonl, index.json
    6. recount                      the leak report, from what was written

All that is written but the report is a function of the records and the settings alone: chunks are
cut by size and results are taken in order, so that the number of workers does not show.
"""

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from openllm.core.config import Config
from openllm.core.errors import DataError
from openllm.core.files import write_json
from openllm.core.log import Meter, progress
from openllm.data import dedup
from openllm.data.chunks import CHUNK_BYTES, clean_chunk, cut, dropped_line
from openllm.data.document import SPLITS
from openllm.data.filters import QualityConfig
from openllm.data.leaks import (
    LEAK,
    GramTable,
    gram_table,
    portions,
    shared_documents,
    shared_phrase,
)
from openllm.data.parallel import ordered_map
from openllm.data.records import ReadOptions
from openllm.data.recount import LeakReport, recount
from openllm.data.sources import Source, file_names, records
from openllm.data.split import TRAIN, SplitConfig, assign
from openllm.data.store import Store, StoreWriter


class PrepareConfig(Config):
    """Settings of `openllm data prepare`.

    Attributes:
        text_key: field of the text in jsonl, csv, tsv and parquet.
        title_keys: fields of the title; the first that is there counts.
        split_paragraphs: each passage between blank lines of a text file is a document.
        quality: limits of the quality rules.
        near_threshold: Jaccard similarity of word 5-grams from which on two texts are duplicates.
        split: how much is held out.
    """

    text_key: str = "text"
    title_keys: tuple[str, ...] = ("title",)
    split_paragraphs: bool = False
    quality: QualityConfig = QualityConfig()
    near_threshold: float = Field(0.8, ge=0.7, le=1)
    split: SplitConfig = SplitConfig()


@dataclass
class Result:
    """What `prepare` found out; `report` turns it into report.json and report.md."""

    records: dict[str, int]
    dropped: Counter[tuple[str, str]]
    kept: dict[str, Counter[str]]
    splits: dict[str, dict[str, Any]]
    leaks: dict[str, LeakReport]
    titles: dict[str, int]
    lengths: dict[str, list[int]]
    phrases: Counter[str]
    seconds: dict[str, float]
    bytes_read: int
    text_bytes: int


def prepare(sources: Sequence[Source], folder: Path, config: PrepareConfig, workers: int) -> Result:
    """Run all steps and write everything but the report into the empty `folder`.

    Raises:
        DataError: a file cannot be opened, or no document is left.
    """
    work = folder / "work"
    work.mkdir()
    clock = _Clock()
    pipeline = _Pipeline(sources, folder, work, config, workers)
    pipeline.scan()
    clock.lap("read, clean, hash")
    store = Store(work)
    try:
        if not len(store):
            raise DataError(_nothing_left(pipeline.dropped))
        fate, partner = _duplicates(store, config)
        clock.lap("deduplicate")
        side = _sides(store, fate == KEPT, config)
        clock.lap("split")
        pipeline.remove_leaks(store, fate, partner, side)
        clock.lap("remove leaks")
        splits = pipeline.write(store, fate, partner, side)
        clock.lap("write")
        titles, lengths = _survey(store, fate == KEPT, side)
    finally:
        store.close()
    shutil.rmtree(work)
    leaks = recount(folder, config.near_threshold, workers)
    clock.lap("recount leaks")
    return Result(
        records=pipeline.records,
        dropped=pipeline.dropped,
        kept=pipeline.kept,
        splits=splits,
        leaks=leaks,
        titles=titles,
        lengths=lengths,
        phrases=pipeline.phrases,
        seconds=clock.seconds,
        bytes_read=pipeline.bytes_read,
        text_bytes=pipeline.text_bytes,
    )


class _Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = now - self._last
        self._last = now


KEPT, EXACT, NEAR, LEAKED = 0, 1, 2, 3
"""What becomes of a document after the quality rules."""
_MOST_PHRASES = 10_000
_REASONS = {EXACT: "exact-duplicate", NEAR: "near-duplicate", LEAKED: "shared-with-heldout"}


def _duplicates(store: Store, config: PrepareConfig) -> tuple[np.ndarray, np.ndarray]:
    """The fate of each document so far, and the document kept in its stead or -1."""
    facts = store.facts
    # A document with a title is kept rather than its double without: it can be split by article.
    # One that its source has put on a held-out side stays there.
    rank = np.lexsort((np.arange(len(facts)), ~facts["titled"], facts["given"] <= 1 + TRAIN))
    place = np.empty(len(facts), dtype=np.int64)
    place[rank] = np.arange(len(facts))
    partner = dedup.exact_duplicates(facts["hash"], place)
    fate = np.where(partner >= 0, EXACT, KEPT).astype(np.uint8)
    near = dedup.near_duplicates(
        store.folder, fate == KEPT, place, config.near_threshold, store.text
    )
    fate[(fate == KEPT) & (near >= 0)] = NEAR
    return fate, np.where(fate == NEAR, near, partner)


def _sides(store: Store, kept: np.ndarray, config: PrepareConfig) -> np.ndarray:
    """The side of each kept document; TRAIN for the others."""
    facts = store.facts
    side = np.zeros(len(facts), dtype=np.uint8)
    given = kept & (facts["given"] > 0)
    side[given] = facts["given"][given] - 1
    drawn = np.flatnonzero(kept & (facts["given"] == 0))
    own = facts[drawn]
    side[drawn] = assign(own["group"], own["titled"], own["bytes"], own["source"], config.split)
    return side


def _survey(
    store: Store, kept: np.ndarray, side: np.ndarray
) -> tuple[dict[str, int], dict[str, list[int]]]:
    """Titles of each split, and how many documents have 1, 2-3, 4-7, 8-15, ... words."""
    titles, lengths = {}, {}
    for number, split in enumerate(SPLITS):
        own = kept & (side == number)
        titles[split] = len(np.unique(store.facts["group"][own & store.facts["titled"]]))
        powers = np.log2(np.maximum(1, store.facts["words"][own])).astype(np.int64)
        lengths[split] = np.bincount(powers).tolist()
    return titles, lengths


def _nothing_left(dropped: Counter[tuple[str, str]]) -> str:
    reasons: Counter[str] = Counter()
    for (_, reason), count in dropped.items():
        reasons[reason] += count
    if not reasons:
        return "the sources hold no documents at all; check that the files are not empty"
    listed = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
    return (
        f"no document is left ({listed}); check --text-key and the format of the files, "
        "or loosen the quality rules, for example --min-words 1"
    )


class _Pipeline:
    """The steps that read or write documents, with the counts they gather."""

    def __init__(
        self,
        sources: Sequence[Source],
        folder: Path,
        work: Path,
        config: PrepareConfig,
        workers: int,
    ) -> None:
        self._sources, self._config, self._workers = sources, config, workers
        self._folder, self._work = folder, work
        self._files = file_names(sources)
        self.records: Counter[str] = Counter()
        self.dropped: Counter[tuple[str, str]] = Counter()
        self.kept: dict[str, Counter[str]] = {}
        self.phrases: Counter[str] = Counter()
        self.bytes_read = 0
        self.text_bytes = 0

    def scan(self) -> None:
        """Step 1: fill the store, and dropped.jsonl with what is left out already."""
        total = sum(file.size for source in self._sources for file in source.files)
        known = total if all(f.size for s in self._sources for f in s.files) else None
        with (
            progress("read", known and known / 1e6, "MB") as meter,
            StoreWriter(self._work) as writer,
            open(self._folder / "dropped.jsonl", "wb") as dropped,
        ):
            chunks = cut(records(self._sources, self._options(), self._counter(meter)))
            for batch in ordered_map(clean_chunk, chunks, self._workers, self._config.quality):
                writer.append(batch)
                dropped.write(batch.dropped)
                self.records.update(batch.records)
                self.dropped.update(batch.reasons)
                self.text_bytes += batch.text_bytes

    def _options(self) -> ReadOptions:
        config = self._config
        return ReadOptions(config.text_key, config.title_keys, config.split_paragraphs)

    def _counter(self, meter: Meter) -> Callable[[int], None]:
        def count(amount: int) -> None:
            self.bytes_read += amount
            meter.advance(amount / 1e6)

        return count

    def remove_leaks(
        self, store: Store, fate: np.ndarray, partner: np.ndarray, side: np.ndarray
    ) -> None:
        """Step 4: training documents that share a 13-gram with held-out text leave."""
        heldout = (fate == KEPT) & (side != TRAIN)
        texts = ((int(i), store.text(i)) for i in np.flatnonzero(heldout))
        for portion in portions(texts):
            table = gram_table(portion, LEAK)
            training = (fate == KEPT) & (side == TRAIN)
            chunks = store.chunks(training, CHUNK_BYTES)
            for found in ordered_map(_find_shared, chunks, self._workers, table):
                for number, owner in found:
                    fate[number], partner[number] = LEAKED, owner

    def write(
        self, store: Store, fate: np.ndarray, partner: np.ndarray, side: np.ndarray
    ) -> dict[str, dict[str, Any]]:
        """Step 5: the splits and the rest of dropped.jsonl; returns the splits of index.json."""
        outputs = [_Output(self._folder / f"{split}.jsonl") for split in SPLITS]
        try:
            with (
                open(self._folder / "dropped.jsonl", "ab") as dropped,
                progress("write", len(store), "documents") as meter,
            ):
                for number, line in enumerate(store.lines()):
                    name = self._files[store.facts["file"][number]][0]
                    if fate[number] == KEPT:
                        outputs[side[number]].add(line, store.facts[number])
                        self.kept.setdefault(name, Counter())[SPLITS[side[number]]] += 1
                    else:
                        line = self._epitaph(store, number, int(partner[number]), int(fate[number]))
                        dropped.write(line)
                        self.dropped[name, _REASONS[int(fate[number])]] += 1
                    meter.advance()
        finally:
            for output in outputs:
                output.close()
        return {split: out.summary() for split, out in zip(SPLITS, outputs, strict=True)}

    def _epitaph(self, store: Store, number: int, partner: int, fate: int) -> bytes:
        """The line of dropped.jsonl of a duplicate or a leak."""
        other = store.id(partner)
        if fate == EXACT:
            detail = f"same text as {other}"
        elif fate == NEAR:
            detail = f"near duplicate of {other}"
        else:
            phrase = shared_phrase(store.text(number), store.text(partner))
            detail = f"shares with {other}: {phrase}"
            if len(self.phrases) < _MOST_PHRASES:
                self.phrases[phrase] += 1
        name, path = self._files[store.facts["file"][number]]
        line = int(store.facts["line"][number])
        return dropped_line(store.id(number), name, path, line, _REASONS[fate], detail)


class _Output:
    """One split on its way to disk."""

    def __init__(self, path: Path) -> None:
        self._handle = open(path, "wb")  # noqa: SIM115
        self._digest = hashlib.sha256()
        self._counts = {"documents": 0, "bytes": 0, "words": 0}

    def add(self, line: bytes, fact: np.void) -> None:
        self._handle.write(line)
        self._digest.update(line)
        self._counts["documents"] += 1
        self._counts["bytes"] += int(fact["bytes"])
        self._counts["words"] += int(fact["words"])

    def close(self) -> None:
        self._handle.close()

    def summary(self) -> dict[str, Any]:
        return {**self._counts, "sha256": self._digest.hexdigest()}


def _find_shared(chunk: tuple[np.ndarray, list[bytes]], table: GramTable) -> list[tuple[int, int]]:
    """The documents of a chunk that share a 13-gram with a table; runs in a worker."""
    numbers, lines = chunk
    found = shared_documents([json.loads(line)["text"] for line in lines], table)
    return [(int(numbers[place]), owner) for place, owner in found]


def write_index(
    folder: Path, sources: Sequence[Source], config: PrepareConfig, splits: dict[str, Any]
) -> dict[str, Any]:
    """Write index.json; its fingerprint names the three splits and nothing else."""
    joined = "".join(splits[split]["sha256"] for split in SPLITS)
    corpora = {source.corpus for source in sources}
    index = {
        "kind": "documents",
        "corpus": corpora.pop() if len(corpora) == 1 else "mixed",
        "sources": [
            {
                "name": source.name,
                "licence": source.licence,
                "files": [Path(file.path).name for file in source.files],
            }
            for source in sources
        ],
        "splits": splits,
        "fingerprint": hashlib.sha256(joined.encode()).hexdigest(),
        "config": config.dump(),
    }
    write_json(folder / "index.json", index)
    return index
