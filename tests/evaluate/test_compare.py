# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Differences beyond the noise of documents and of seeds are found, others are not."""

import math

import numpy as np
import pytest

from openllm.evaluate.compare import compare, seed_limit, student_t

SIZES = np.full(200, 100)


def scores(means: list[float], seeds: int, noise: float, draw: int = 0) -> np.ndarray:
    """Nats of 200 documents, (M, S, D): documents differ a lot, seeds by `noise` bits per byte."""
    rng = np.random.default_rng(draw)
    document = rng.normal(0, 0.5, 200)
    run = rng.normal(0, noise, (len(means), seeds, 1))
    own = rng.normal(0, 0.02, (len(means), seeds, 200))
    bits = np.array(means)[:, None, None] + document + run + own
    return bits * 100 * math.log(2)


def test_a_large_difference_is_seen_through_the_spread_of_documents() -> None:
    found = compare(scores([2.1, 2.0, 2.3], 2, 0.001), SIZES)
    assert found.ranking == (1, 0, 2)
    assert [standing.worse for standing in found.standings] == [True, False, True]
    behind, bits = found.standings[0].behind, found.standings[0].bits
    assert behind.low < 0.1 < behind.high and behind.high - behind.low < 0.02
    assert bits.high - bits.low > 0.1, "documents differ"
    best = found.standings[1]
    assert (best.behind.value, best.behind.low, best.behind.high) == (0, 0, 0)
    assert best.bits.value == pytest.approx(np.mean(best.seeds))


def test_the_luck_of_seeds_is_no_difference() -> None:
    found = compare(scores([2.0, 2.0, 2.0], 2, 0.05), SIZES)
    assert not any(standing.worse for standing in found.standings)
    # by documents alone one of them would be worse
    assert any(standing.behind.low > 0 for standing in found.standings)
    assert found.limit is not None and found.limit > 0.02


def test_equal_mixtures_are_seldom_told_apart() -> None:
    wrong = sum(
        standing.worse
        for draw in range(100)
        for standing in compare(scores([2.0, 2.0], 3, 0.03, draw), SIZES, resamples=100).standings
    )
    assert wrong <= 12


def test_what_seeds_have_in_common_is_no_noise() -> None:
    bits = np.array([[2.0, 2.4], [2.1, 2.5], [2.3, 2.7]])
    assert seed_limit(bits) == pytest.approx(0, abs=1e-9)
    assert seed_limit(bits[:, :1]) is None and seed_limit(bits[:1]) is None
    # two ways, two seeds: the difference is 0.1 +- 0.1, one degree of freedom
    assert seed_limit(np.array([[2.0, 2.0], [2.0, 2.2]])) == pytest.approx(12.71 * 0.1)


def test_few_documents_prove_nothing() -> None:
    nll = scores([2.0, 3.0], 2, 0.001)
    assert not any(standing.worse for standing in compare(nll[:, :, :9], SIZES[:9]).standings)
    assert compare(nll[:, :, :10], SIZES[:10]).standings[1].worse


@pytest.mark.parametrize(("freedom", "value"), [(1, 12.706), (5, 2.571), (12, 2.179), (60, 2.000)])
def test_quantiles_of_student(freedom: int, value: float) -> None:
    assert student_t(freedom) == pytest.approx(value, rel=0.01)
