# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The fate of each document that passed the rules: kept or dropped, and in which split."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from openllm.core.log import progress
from openllm.data.parallel import metered, ordered_map
from openllm.data.prepare.chunks import CHUNK_BYTES
from openllm.data.prepare.dedup import exact_duplicates, near_duplicates
from openllm.data.prepare.leaks import (
    LEAK,
    MOST_CANDIDATES,
    GramFilter,
    Numbered,
    confirm,
    leak_candidates,
    leak_filter,
)
from openllm.data.prepare.ngrams import ngrams, split_words
from openllm.data.prepare.split import TRAIN, SplitConfig, assign
from openllm.data.prepare.store import Store

KEPT, EXACT, NEAR, LEAKED = 0, 1, 2, 3
"""Fates of a document."""
REASONS = {EXACT: "exact-duplicate", NEAR: "near-duplicate", LEAKED: "shared-with-heldout"}
"""Names of the fates in dropped.jsonl and in reports."""


@dataclass
class Decisions:
    """The fate of each document of a store, refined step by step.

    Attributes:
        fate: uint8 [N], KEPT, EXACT, NEAR or LEAKED.
        partner: int64 [N], the document kept instead, or the one it shares text with; else -1.
        side: uint8 [N], TRAIN, VALIDATION or TEST.
    """

    fate: np.ndarray
    partner: np.ndarray
    side: np.ndarray

    def kept(self, side: int) -> np.ndarray:
        """Which documents are kept in a split, bool [N]."""
        return (self.fate == KEPT) & (self.side == side)


def decide_duplicates(store: Store, threshold: float) -> Decisions:
    """Keep one of all equal texts, and one of each near-duplicate cluster."""
    facts = store.facts
    # Documents held out by their source are kept before others, and those with a title before their
    # duplicates without one: only they can be split by article.
    order = np.lexsort((np.arange(len(facts)), ~facts["titled"], facts["given"] <= 1 + TRAIN))
    rank = np.empty(len(facts), dtype=np.int64)
    rank[order] = np.arange(len(facts))
    partner = exact_duplicates(facts["hash"], rank)
    fate = np.where(partner >= 0, EXACT, KEPT).astype(np.uint8)
    near = near_duplicates(store.folder, fate == KEPT, rank, threshold, store.text)
    found = near >= 0
    fate[found], partner[found] = NEAR, near[found]
    return Decisions(fate, partner, np.zeros(len(facts), dtype=np.uint8))


def decide_sides(store: Store, decisions: Decisions, config: SplitConfig) -> None:
    """Assign each kept document to a split: the one its source states, or one drawn by hash."""
    facts, kept = store.facts, decisions.fate == KEPT
    given = kept & (facts["given"] > 0)
    decisions.side[given] = facts["given"][given] - 1
    drawn = np.flatnonzero(kept & (facts["given"] == 0))
    columns = (facts[name][drawn] for name in ("group", "titled", "bytes", "source"))
    decisions.side[drawn] = assign(*columns, config)


def decide_leaks(store: Store, decisions: Decisions, workers: int) -> None:
    """Drop the training documents that share a 13-gram with held-out text."""
    training = decisions.kept(TRAIN)
    heldout = (decisions.fate == KEPT) & ~training
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    count = 0

    def held_texts() -> Iterator[Numbered]:
        return map(_texts, store.batches(heldout, CHUNK_BYTES))

    def settle() -> None:
        numbers, hashes = map(np.concatenate, zip(*waiting, strict=True))
        owners = confirm(hashes, held_texts())
        leaks = owners >= 0
        decisions.fate[numbers[leaks]] = LEAKED
        decisions.partner[numbers[leaks]] = owners[leaks]
        waiting.clear()

    held = leak_filter(held_texts())
    with progress("finding leaks", int(training.sum()), "documents") as meter:
        batches = store.batches(training, CHUNK_BYTES)
        batches = metered(batches, meter, lambda batch: len(batch[0]))
        for found in ordered_map(_candidates, batches, workers, held):
            waiting.append(found)
            count += len(found[1])
            if count > MOST_CANDIDATES:
                settle()
                count = 0
        if waiting:
            settle()


def _texts(batch: tuple[list[int], list[bytes]]) -> Numbered:
    numbers, lines = batch
    return numbers, [json.loads(line)["text"] for line in lines]


def _candidates(
    batch: tuple[list[int], list[bytes]], held: GramFilter
) -> tuple[np.ndarray, np.ndarray]:
    """Documents of a batch and their 13-grams that may be in held-out text; runs in a worker."""
    numbers, texts = _texts(batch)
    places, hashes = leak_candidates(ngrams(split_words(texts), LEAK), held)
    return np.array(numbers, dtype=np.int64)[places], hashes
