# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What is trained on, and in which order, is a function of (seed, epoch, row) alone."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import random_shards

from openllm.core.errors import DataError
from openllm.data.loader import (
    IGNORE,
    Batch,
    TokenLoader,
    bits_per_byte_per_nat,
    sample_documents,
    sample_numbers,
)
from openllm.data.packing import EpochPlan
from openllm.data.shards import Shards

LENGTHS = st.lists(st.integers(2, 40), min_size=1, max_size=30)


def numbered(lengths: list[int]) -> Shards:
    """Shards in which each token is its position in the split."""
    shards = random_shards(lengths)
    tokens = np.arange(len(shards.tokens), dtype=np.uint32)
    return Shards(
        shards.folder, "train", tokens, shards.offsets, shards.doc_bytes, shards.doc_words
    )


def loader_of(shards: Shards, seq_len: int = 8, **changes: int) -> TokenLoader:
    values = {"micro_rows": 2, "seed": 0, **changes}
    return TokenLoader(shards, seq_len=seq_len, **values)


def same(a: Batch, b: Batch) -> bool:
    arrays = [(a.tokens, b.tokens), (a.targets, b.targets), (a.positions, b.positions)]
    return a.cu_seqlens == b.cu_seqlens and all(np.array_equal(x, y) for x, y in arrays)


@given(LENGTHS, st.integers(2, 16), st.integers(0, 3))
def test_each_token_is_predicted_once_an_epoch(lengths: list[int], seq_len: int, seed: int) -> None:
    shards = numbered(lengths)
    if sum(lengths) < seq_len:
        return
    loader = loader_of(shards, seq_len, micro_rows=1, seed=seed)
    read: Counter[int] = Counter()
    predicted: Counter[int] = Counter()
    for row in range(loader.rows_per_epoch):
        (batch,) = loader.batches(row, row + 1)
        read.update(batch.tokens.ravel().tolist())
        kept = batch.targets != IGNORE
        predicted.update(batch.targets[kept].tolist())
        # what is predicted is the next token of the same document
        assert (batch.targets[kept] == batch.tokens[kept] + 1).all()
    assert set(read.values()) == {1}
    assert set(predicted.values()) <= {1}
    firsts = set(shards.offsets[:-1].tolist())
    assert not firsts & predicted.keys()
    # only the first tokens of documents and the tail that fills no row are left out
    tail = sum(lengths) - loader.rows_per_epoch * seq_len
    missing = set(range(sum(lengths))) - firsts - predicted.keys()
    assert len(missing) <= tail < seq_len


@given(LENGTHS, st.integers(2, 16))
def test_borders_positions_and_targets_agree(lengths: list[int], seq_len: int) -> None:
    shards = numbered(lengths)
    if sum(lengths) < seq_len:
        return
    loader = loader_of(shards, seq_len)
    first_of = np.repeat(shards.offsets[:-1], np.diff(shards.offsets.astype(np.int64)))
    for batch in loader.batches(0, 3):
        assert batch.cu_seqlens[0] == 0 and batch.cu_seqlens[-1] == batch.tokens.size
        assert set(range(0, batch.tokens.size + 1, seq_len)) <= set(batch.cu_seqlens)
        tokens, positions = batch.tokens.ravel(), batch.positions.ravel()
        for start, end in pairwise(batch.cu_seqlens):
            assert start < end
            assert positions[start:end].tolist() == list(range(end - start))
            assert (np.diff(tokens[start:end].astype(int)) == 1).all()
            assert len(set(first_of[tokens[start:end]].tolist())) == 1
            assert (batch.targets.ravel()[start : end - 1] == tokens[start + 1 : end]).all()


def test_batches_depend_on_nothing_that_came_before() -> None:
    shards = random_shards([9, 30, 4, 17, 12, 25])
    asked_alone = loader_of(shards).batches(33, 36)
    loader = loader_of(shards)
    for row in (9, 120, 0, 33, 15):
        loader.batches(row, row + 3)
    assert all(same(a, b) for a, b in zip(loader.batches(33, 36), asked_alone, strict=True))


def test_micro_batches_cut_a_step_without_changing_it() -> None:
    shards = random_shards([9, 30, 4, 17, 12, 25])
    whole = loader_of(shards, micro_rows=3).batches(21, 24)
    parts = loader_of(shards, micro_rows=2).batches(21, 24)
    assert [len(batch.tokens) for batch in parts] == [2, 1]
    assert np.array_equal(whole[0].tokens, np.concatenate([batch.tokens for batch in parts]))
    assert np.array_equal(whole[0].targets, np.concatenate([batch.targets for batch in parts]))


def test_epochs_and_seeds_shuffle_differently_and_lose_nothing() -> None:
    lengths = np.array([8] * 50)
    orders = {}
    for seed in range(3):
        for epoch in range(3):
            plan = EpochPlan(lengths, seed, epoch)
            order = [piece.document for row in range(50) for piece in plan.row(row, 8)]
            assert sorted(order) == list(range(50))
            orders[seed, epoch] = tuple(order)
    assert len(set(orders.values())) == 9
    assert EpochPlan(lengths, 1, 2).row(5, 8) == EpochPlan(lengths, 1, 2).row(5, 8)


def test_a_step_may_reach_into_the_next_epoch() -> None:
    shards = numbered([8] * 4)
    loader = loader_of(shards, micro_rows=6)
    (batch,) = loader.batches(0, 6)
    assert sorted(batch.tokens[:4].ravel().tolist()) == list(range(32))
    assert len(set(batch.tokens[4:].ravel().tolist())) == 16


@given(LENGTHS, st.integers(2, 16), st.integers(1, 12))
def test_seen_gives_exactly_what_was_trained_on(
    lengths: list[int], seq_len: int, rows: int
) -> None:
    if sum(lengths) < seq_len:
        return
    loader = loader_of(numbered(lengths), seq_len, micro_rows=1)
    pairs: set[tuple[int, int]] = set()
    for batch in loader.batches(0, rows):
        kept = batch.targets != IGNORE
        pairs |= set(zip(batch.tokens[kept].tolist(), batch.targets[kept].tolist(), strict=True))
    told_pairs = [pair for one in loader.seen(rows) for pair in pairwise(one.tolist())]
    assert len(told_pairs) == len(set(told_pairs))
    if rows <= loader.rows_per_epoch:
        assert set(told_pairs) == pairs
    else:  # the second epoch shows nothing new except the first one's tail
        assert set(told_pairs) <= pairs


def test_too_little_text_for_one_row_is_an_error() -> None:
    with pytest.raises(DataError, match=r"batch\.seq_len"):
        loader_of(random_shards([3, 4]), seq_len=8)


def test_held_out_documents_are_sampled_whole_and_by_seed() -> None:
    shards = random_shards([10] * 40)
    documents, size = sample_documents(shards, 55, seed=1)
    assert len(documents) == 6 and size == 6 * 40
    again, _ = sample_documents(shards, 55, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(documents, again, strict=True))
    other, _ = sample_documents(shards, 55, seed=2)
    assert not all(np.array_equal(a, b) for a, b in zip(documents, other, strict=True))
    everything, size = sample_documents(shards, 10_000, seed=1)
    assert len(everything) == 40 and size == 1600
    few, more = sample_numbers(shards, 15, seed=1), sample_numbers(shards, 15, seed=1, least=7)
    assert len(few) == 2 and len(more) == 7 and set(few.tolist()) < set(more.tolist())
    assert len(sample_numbers(shards, 15, seed=1, least=50)) == 40


def test_nats_become_bits_per_byte_of_the_text() -> None:
    shards = random_shards([10, 30])  # 36 text tokens, 160 bytes
    assert bits_per_byte_per_nat(shards) == pytest.approx(36 / 160 / np.log(2))
