# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The files of a prepared folder: the splits, the rest of dropped.jsonl, and index.json."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from openllm.core.files import write_json
from openllm.core.log import progress
from openllm.data.document import SPLITS
from openllm.data.prepare.chunks import dropped_line
from openllm.data.prepare.decide import EXACT, KEPT, NEAR, REASONS, Decisions
from openllm.data.prepare.leaks import shared_phrase
from openllm.data.prepare.store import Store
from openllm.data.reading.sources import Source

_MOST_PHRASES = 10_000


@dataclass
class Written:
    """What was written.

    Attributes:
        splits: documents, bytes, words and SHA-256 of each split.
        kept: for each source name, the documents kept per split.
        dropped: how often each (source name, reason) occurs.
        phrases: shared 13-grams, and how many documents were dropped because of each.
        titles: distinct titles of each split.
        lengths: for each split, documents of 1, 2-3, 4-7, 8-15, ... words.
    """

    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    kept: dict[str, Counter[str]] = field(default_factory=dict)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    phrases: Counter[str] = field(default_factory=Counter)
    titles: dict[str, int] = field(default_factory=dict)
    lengths: dict[str, list[int]] = field(default_factory=dict)


def write_documents(
    store: Store, decisions: Decisions, files: Sequence[tuple[str, str]], folder: Path
) -> Written:
    """Write the splits, and append what `decisions` drops to dropped.jsonl.

    Args:
        store: all documents.
        decisions: the fate of each document.
        files: source name and path of each file; see `sources.file_names`.
        folder: the folder to write.
    """
    written = Written()
    facts, file_numbers, line_numbers = store.facts, store.facts["file"], store.facts["line"]
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(_Output(folder / f"{split}.jsonl")) for split in SPLITS]
        dropped = stack.enter_context(open(folder / "dropped.jsonl", "ab"))
        meter = stack.enter_context(progress("writing", len(store), "documents"))
        for number, line in enumerate(store.lines()):
            name, path = files[file_numbers[number]]
            fate, side = int(decisions.fate[number]), int(decisions.side[number])
            if fate == KEPT:
                outputs[side].add(line, facts[number])
                written.kept.setdefault(name, Counter())[SPLITS[side]] += 1
            else:
                detail = _detail(store, number, int(decisions.partner[number]), fate, written)
                place = int(line_numbers[number])
                reason = REASONS[fate]
                dropped.write(dropped_line(store.id(number), name, path, place, reason, detail))
                written.dropped[name, reason] += 1
            meter.advance()
    for side, (split, output) in enumerate(zip(SPLITS, outputs, strict=True)):
        own = decisions.kept(side)
        powers = np.log2(np.maximum(1, facts["words"][own])).astype(np.int64)
        written.splits[split] = output.summary()
        written.titles[split] = len(np.unique(facts["group"][own & facts["titled"]]))
        written.lengths[split] = np.bincount(powers).tolist()
    return written


def _detail(store: Store, number: int, partner: int, fate: int, written: Written) -> str:
    """Why a document is dropped, in words."""
    other = store.id(partner)
    if fate == EXACT:
        return f"same text as {other}"
    if fate == NEAR:
        return f"near duplicate of {other}"
    phrase = shared_phrase(store.text(number), store.text(partner))
    if phrase in written.phrases or len(written.phrases) < _MOST_PHRASES:
        written.phrases[phrase] += 1
    return f"shares a phrase with {other}: {phrase}"


class _Output:
    """One split being written."""

    def __init__(self, path: Path) -> None:
        self._handle = open(path, "wb")  # noqa: SIM115
        self._digest = hashlib.sha256()
        self._counts = {"documents": 0, "bytes": 0, "words": 0}

    def __enter__(self) -> "_Output":
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.close()

    def add(self, line: bytes, fact: np.void) -> None:
        self._handle.write(line)
        self._digest.update(line)
        self._counts["documents"] += 1
        self._counts["bytes"] += int(fact["bytes"])
        self._counts["words"] += int(fact["words"])

    def summary(self) -> dict[str, Any]:
        return {**self._counts, "sha256": self._digest.hexdigest()}


def write_index(
    folder: Path, sources: Sequence[Source], config: dict[str, Any], splits: dict[str, Any]
) -> None:
    """Write index.json; its fingerprint covers the three splits and nothing else."""
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
        "config": config,
    }
    write_json(folder / "index.json", index)
