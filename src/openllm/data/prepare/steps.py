# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Sources in, prepared folder out: the steps of `openllm data prepare`, in order.

    1. read, clean, filter, hash    every record, in chunks, by all workers       chunks.py
    2. exact and near duplicates    by hashes and bands on disk                   dedup.py
    3. split                        whole articles, drawn by hash                 split.py
    4. leaks                        drop training documents that share 13 words   leaks.py
    5. write                        splits, dropped.jsonl, index.json             output.py
    6. recount                      the leak report, from the written files       recount.py

All output except the report depends on the records and the settings alone: chunks are cut by size
and results are taken in order, so the number of workers makes no difference.
"""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pydantic import Field

from openllm.core.config import Config
from openllm.core.errors import DataError
from openllm.core.log import Meter, progress
from openllm.data.parallel import ordered_map
from openllm.data.prepare.chunks import clean_chunk, cut
from openllm.data.prepare.decide import decide_duplicates, decide_leaks, decide_sides
from openllm.data.prepare.filters import QualityConfig
from openllm.data.prepare.output import Written, write_documents, write_index
from openllm.data.prepare.recount import LeakReport, recount
from openllm.data.prepare.split import SplitConfig
from openllm.data.prepare.store import Store, StoreWriter
from openllm.data.reading.records import ReadOptions
from openllm.data.reading.sources import Source, file_names, records


class PrepareConfig(Config):
    """Settings of `openllm data prepare`.

    Attributes:
        text_key: text field in jsonl, csv, tsv and parquet.
        title_keys: title fields; the first that is not empty counts.
        split_paragraphs: each passage between blank lines of a text file is a document.
        quality: limits of the quality rules.
        near_threshold: lowest Jaccard similarity of word 5-grams at which two texts are duplicates.
        split: how much is held out.
    """

    text_key: str = "text"
    title_keys: tuple[str, ...] = ("title",)
    split_paragraphs: bool = False
    quality: QualityConfig = QualityConfig()
    near_threshold: float = Field(0.8, ge=0.7, le=1)
    split: SplitConfig = SplitConfig()


@dataclass
class Scan:
    """What was read.

    Attributes:
        records: number of records by source name.
        dropped: how often each (source name, reason) occurs.
        broken: number of records that could not be read.
        bytes_read: bytes of the files as stored.
        text_bytes: bytes of cleaned text, before anything is dropped.
    """

    records: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    broken: int = 0
    bytes_read: int = 0
    text_bytes: int = 0


@dataclass(frozen=True)
class Result:
    """All counts of a preparation, for `report`.

    Attributes:
        scan: what was read.
        written: what was written.
        leaks: what the splits share, see `recount`.
        seconds: duration of each step.
        cpu_seconds: processor time of all processes.
    """

    scan: Scan
    written: Written
    leaks: dict[str, LeakReport]
    seconds: dict[str, float]
    cpu_seconds: float


def prepare(sources: Sequence[Source], folder: Path, config: PrepareConfig, workers: int) -> Result:
    """Run all steps and write everything but the report into the empty `folder`.

    Raises:
        DataError: a file cannot be opened, or no document is left.
        MissingExtra: a file needs a library that is not installed.
    """
    work = folder / "work"
    work.mkdir()
    clock = _Clock()
    scan = _scan(sources, folder, work, config, workers)
    clock.lap("read, clean, hash")
    with Store(work) as store:
        if not len(store):
            raise DataError(_nothing_left(scan.dropped, folder))
        decisions = decide_duplicates(store, config.near_threshold)
        clock.lap("deduplicate")
        decide_sides(store, decisions, config.split)
        decide_leaks(store, decisions, workers)
        clock.lap("split, remove leaks")
        written = write_documents(store, decisions, file_names(sources), folder)
    if not written.splits["train"]["documents"]:
        raise DataError(_nothing_to_train_on(written))
    shutil.rmtree(work)
    write_index(folder, sources, config.dump(), written.splits)
    clock.lap("write")
    leaks = recount(folder, config.near_threshold, workers)
    clock.lap("recount leaks")
    return Result(scan, written, leaks, clock.seconds, clock.cpu_seconds())


class _Clock:
    """Seconds of each step, and total processor time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()
        self._cpu = sum(os.times()[:4])

    def cpu_seconds(self) -> float:
        return sum(os.times()[:4]) - self._cpu

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = now - self._last
        self._last = now


def _scan(
    sources: Sequence[Source], folder: Path, work: Path, config: PrepareConfig, workers: int
) -> Scan:
    """Step 1: fill the store in `work`, and dropped.jsonl with what is dropped so far."""
    sizes = [file.size for source in sources for file in source.files]
    total = sum(sizes) / 1e6 if sizes and all(sizes) else None
    options = ReadOptions(config.text_key, config.title_keys, config.split_paragraphs)
    scan = Scan()
    with (
        progress("reading", total, "MB") as meter,
        StoreWriter(work) as writer,
        open(folder / "dropped.jsonl", "wb") as dropped,
    ):
        chunks = cut(records(sources, options, _counter(scan, meter)))
        for batch in ordered_map(clean_chunk, chunks, workers, config.quality):
            writer.append(batch)
            dropped.write(batch.dropped)
            scan.records.update(batch.records)
            scan.dropped.update(batch.reasons)
            scan.broken += batch.broken
            scan.text_bytes += batch.text_bytes
    return scan


def _counter(scan: Scan, meter: Meter) -> Callable[[int], None]:
    def count(amount: int) -> None:
        scan.bytes_read += amount
        meter.advance(amount / 1e6)

    return count


def _count_reasons(dropped: Counter[tuple[str, str]]) -> str:
    """`{("notes", "too-short"): 3}` -> `too-short 3`, the most frequent first."""
    reasons: Counter[str] = Counter()
    for (_, reason), count in dropped.items():
        reasons[reason] += count
    return ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())


def _nothing_left(dropped: Counter[tuple[str, str]], folder: Path) -> str:
    if not dropped:
        return "the sources contain no documents; check that the files are not empty"
    with open(folder / "dropped.jsonl", "rb") as handle:
        first = [json.loads(line) for line in islice(handle, 3)]
    places = [f"{item['file']}:{item['line']} {item['detail']}" for item in first]
    return (
        f"no documents are left ({_count_reasons(dropped)}); check --text-key and the format of "
        "the files, or relax the quality rules, for example --min-words 1. First dropped:\n  "
        + "\n  ".join(places)
    )


def _nothing_to_train_on(written: Written) -> str:
    phrases = written.phrases.most_common(1)
    shared = f"; most of them share '{phrases[0][0]}'" if phrases else ""
    return (
        f"no training documents are left ({_count_reasons(written.dropped)}{shared}); add more "
        "text, remove what all documents have in common, or hold out less with --validation and "
        "--test"
    )
