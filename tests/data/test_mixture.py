# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A mixture keeps its shares at every row, and reads each source as if it were alone."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import random_shards

from openllm.core.errors import ConfigError
from openllm.data.loader import Batch, TokenLoader
from openllm.data.mixture import Mixture, MixtureLoader, Turns, normalised, refuse_twins
from openllm.data.shards import Shards

WEIGHTS = st.lists(st.integers(1, 50), min_size=1, max_size=6)
SIZES = {"web": 600, "books": 300, "squad": 100}


def numbered(lengths: list[int], source: int) -> Shards:
    """Shards whose tokens encode their source and their position in it."""
    shards = random_shards(lengths)
    tokens = np.arange(len(shards.tokens), dtype=np.uint32) + np.uint32(10_000 * source)
    return Shards(
        shards.folder, "train", tokens, shards.offsets, shards.doc_bytes, shards.doc_words
    )


def loaders_of(count: int, seq_len: int = 8, **changes: int) -> list[TokenLoader]:
    values = {"micro_rows": 3, "seed": 0, **changes}
    lengths = [[9, 30, 4, 17, 12, 25], [40, 40, 40], [8] * 7, [5, 99]]
    return [TokenLoader(numbered(lengths[i], i), seq_len=seq_len, **values) for i in range(count)]


def mixed(weights: list[float], **changes: int) -> MixtureLoader:
    rows = {"micro_rows": 3, **changes}
    return MixtureLoader(loaders_of(len(weights)), weights, **rows)


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        x.cu_seqlens == y.cu_seqlens
        and np.array_equal(x.tokens, y.tokens)
        and np.array_equal(x.targets, y.targets)
        and np.array_equal(x.positions, y.positions)
        for x, y in zip(a, b, strict=True)
    )


@given(WEIGHTS, st.integers(1, 120))
def test_shares_are_met_within_one_row_over_any_prefix(weights: list[int], rows: int) -> None:
    shares = normalised(weights)
    turns = Turns(shares)
    counts = [0] * len(weights)
    bound = 1 - Fraction(1, max(2, 2 * len(weights) - 2)) if len(weights) > 1 else 0
    for row in range(rows):
        source, own_row = turns[row]
        assert own_row == counts[source], "a source skips or repeats one of its rows"
        counts[source] += 1
        owed = [share * (row + 1) for share in shares]
        assert all(abs(o - c) <= bound for o, c in zip(owed, counts, strict=True))
    assert turns.counts(rows) == counts


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=5), st.integers(0, 80))
def test_a_turn_is_a_function_of_its_row(weights: list[float], row: int) -> None:
    asked_alone = Turns(normalised(weights))[row]
    turns = Turns(normalised(weights))
    for other in (3, 90, 0, row):
        turns[other]
    assert turns[row] == asked_alone


def test_batches_depend_on_nothing_that_came_before() -> None:
    asked_alone = mixed([0.5, 0.3, 0.2]).batches(44, 48)
    loader = mixed([0.5, 0.3, 0.2])
    for row in (12, 160, 0, 44, 20):
        loader.batches(row, row + 4)
    assert same(loader.batches(44, 48), asked_alone)
    assert not same(loader.batches(48, 52), asked_alone)


def test_one_source_is_read_as_by_its_own_loader() -> None:
    (alone,) = loaders_of(1)
    loader = mixed([0.7])
    assert all(
        same(loader.batches(row, row + 4), alone.batches(row, row + 4)) for row in range(0, 48, 4)
    )
    assert alone.rows_per_epoch == loader.rows_per_epoch < 48


def test_each_row_is_the_next_of_its_source() -> None:
    loader = mixed([5, 3, 2], micro_rows=1)
    alone = loaders_of(3, micro_rows=1)
    taken: Counter[int] = Counter()
    for row in range(200):
        (batch,) = loader.batches(row, row + 1)
        (source,) = set((batch.tokens.ravel() // 10_000).tolist())
        assert same([batch], alone[source].batches(taken[source], taken[source] + 1))
        taken[source] += 1
    assert taken == {0: 100, 1: 60, 2: 40}


def test_batches_keep_documents_and_borders_apart() -> None:
    for batch in mixed([1, 1, 1]).batches(12, 18):
        tokens, positions = batch.tokens.ravel(), batch.positions.ravel()
        assert set(range(0, tokens.size + 1, 8)) <= set(batch.cu_seqlens)
        for start, end in pairwise(batch.cu_seqlens):
            assert positions[start:end].tolist() == list(range(end - start))
            assert len(set((tokens[start:end] // 10_000).tolist())) == 1


def test_an_exhausted_source_begins_its_next_epoch() -> None:
    loader = mixed([3, 1], micro_rows=4)
    rows = [source.rows_per_epoch for source in loader.loaders]
    assert loader.epochs(80) == [60 / rows[0], 20 / rows[1]]
    assert loader.epochs(80)[0] > 4 and loader.epochs(0) == [0, 0]
    seen: list[Counter[int]] = [Counter(), Counter()]
    steps = rows[0]  # 3 epochs of the first source
    for step in range(steps):
        (batch,) = loader.batches(4 * step, 4 * step + 4)
        for row in batch.tokens:
            seen[row[0] // 10_000].update(row.tolist())
    # all but the tail of an epoch, which does not fill a row, is read once per epoch
    assert max(seen[0].values()) == 3
    assert sum(seen[0].values()) == 3 * rows[0] * 8


@pytest.mark.parametrize("weights", [[], [1, 0], [1, -1], [1, float("nan")], [float("inf")]])
def test_weights_are_positive_numbers(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        normalised(weights)


def test_loaders_must_fit_together() -> None:
    (short,), (long,) = loaders_of(1), loaders_of(1, seq_len=16)
    with pytest.raises(ValueError, match="the same row length"):
        MixtureLoader([short, long], [1, 1], micro_rows=1)
    with pytest.raises(ValueError, match="2 weights"):
        MixtureLoader([short], [1, 1], micro_rows=1)


@pytest.mark.parametrize(
    ("text", "name", "shares"),
    [
        ("web:0.7,books:0.3", "web:0.7,books:0.3", {"web": "7/10", "books": "3/10"}),
        ("web:2, books:1/2", "web:2,books:1/2", {"web": "4/5", "books": "1/5"}),
        ("squad:.5", "squad:.5", {"squad": "1"}),
        ("squad", "squad", {"squad": "1"}),
        ("equal", "equal", dict.fromkeys(SIZES, "1/3")),
        (
            "natural",
            "natural (web:0.6,books:0.3,squad:0.1)",
            {"web": "6/10", "books": "3/10", "squad": "1/10"},
        ),
    ],
)
def test_mixtures_are_read_as_written(text: str, name: str, shares: dict[str, str]) -> None:
    mixture = Mixture.parse(text, SIZES)
    assert mixture.name == name
    assert mixture.shares == {source: Fraction(share) for source, share in shares.items()}


BAD_WEIGHTS = ["0", "-1", "nan", "inf", "", "x", "1e9", "1/0", "0.0", "1:2", "9" * 9999 + "/1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("blogs:1", "unknown source 'blogs'; sources: web, books, squad"),
        ("", "unknown source"),
        ("web:1,", "unknown source"),
        ("web:1,web:2", "twice"),
        ("web,books", "'web' the weight ''"),
        *((f"web:1,books:{weight}", "positive numbers") for weight in BAD_WEIGHTS),
    ],
)
def test_mixtures_that_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Mixture.parse(text, SIZES)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [("web:1,books:1", "books:0.5,web:0.5"), ("web", "web:3"), ("equal", "equal")],
)
def test_the_same_mixture_twice_is_refused(first: str, second: str) -> None:
    mixtures = [Mixture.parse(text, SIZES) for text in (first, "squad", second)]
    with pytest.raises(ConfigError, match="are the same"):
        refuse_twins(mixtures)
    refuse_twins(mixtures[:2])
