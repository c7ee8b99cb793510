# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import math

import numpy as np
import pytest

from openllm.evaluate.perplexity import (
    Totals,
    difference,
    document_totals,
    full_context_share,
    intervals,
    loss_by_position,
    measures,
    resample,
)


def totals(documents: int, bits: float = 2.0, noise: float = 0.3, seed: int = 0) -> Totals:
    """Documents of about 40 tokens, 3 bytes per token, near `bits` bits per byte."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(20, 60, documents)
    nll = bits * math.log(2) * tokens * 3 * (1 + noise * rng.standard_normal(documents))
    return Totals(nll, tokens, tokens * 3, tokens // 2)


def test_counts_the_text_alone() -> None:
    # Two documents of 2 and 1 text tokens, then eos, which has a very bad log-probability.
    logprobs = [np.log([0.5, 0.25, 1e-9]), np.log([0.125, 1e-9])]
    found = document_totals(logprobs, [3, 1], [1, 1])
    np.testing.assert_allclose(found.nll_D, [3 * math.log(2), 3 * math.log(2)])
    np.testing.assert_array_equal(found.tokens_D, [2, 1])
    values = measures(found.columns().sum(axis=0))
    assert values["loss"] == pytest.approx(2 * math.log(2))
    assert values["token_perplexity"] == pytest.approx(4)
    assert values["bits_per_byte"] == pytest.approx(6 / 4)
    assert values["word_perplexity"] == pytest.approx(8)


def test_a_uniform_model_scores_the_vocabulary() -> None:
    documents = [np.full(length, -math.log(256.0)) for length in (5, 17, 2)]
    # One token per byte, as in a byte-level model.
    found = document_totals(documents, [4, 16, 1], [1, 3, 1])
    values = intervals(found, resamples=50)
    assert values["bits_per_byte"].value == pytest.approx(8)
    assert values["token_perplexity"].value == pytest.approx(256)
    assert values["bits_per_byte"].low == pytest.approx(8)
    assert values["bits_per_byte"].high == pytest.approx(8)


def test_float32_logprobs_are_summed_in_double() -> None:
    logprobs = np.full(3_000_001, -0.1, np.float32)
    found = document_totals([logprobs], [1], [1])
    assert found.nll_D[0] == pytest.approx(3_000_000 * float(np.float32(0.1)), rel=1e-12)


def test_resampling_is_the_bootstrap() -> None:
    columns = np.random.default_rng(1).random((7, 3))
    found = resample(columns, 5, seed=9)
    drawn = np.random.default_rng(9).integers(0, 7, (5, 7))
    np.testing.assert_allclose(found, columns[drawn].sum(axis=1))


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    truth, covered = 2.0, 0
    for seed in range(200):
        interval = intervals(totals(80, truth, seed=seed), resamples=200, seed=seed)
        covered += interval["bits_per_byte"].low <= truth <= interval["bits_per_byte"].high
    assert 176 <= covered <= 199


def test_intervals_are_seeded_and_shrink_with_documents() -> None:
    small, large = totals(50), totals(5000)
    assert intervals(small) == intervals(small)
    assert intervals(small) != intervals(small, seed=1)

    def width(data: Totals) -> float:
        found = intervals(data)["loss"]
        return found.high - found.low

    assert width(large) < width(small) / 4


def test_the_difference_is_paired() -> None:
    # The model saves the same tenth of each document: no uncertainty, however documents vary.
    baseline = totals(60, noise=0.9)
    model = Totals(0.9 * baseline.nll_D, baseline.tokens_D, baseline.bytes_D, baseline.words_D)
    found = difference(model, baseline)
    assert found["reduction"].value == pytest.approx(0.1)
    assert found["reduction"].low == pytest.approx(0.1)
    assert found["reduction"].high == pytest.approx(0.1)
    assert found["bits_per_byte"].high < 0
    apart = intervals(model)["bits_per_byte"].high, intervals(baseline)["bits_per_byte"].low
    assert apart[0] > apart[1], "intervals of each alone would overlap"


def test_perplexity_beyond_floats_is_infinite_not_an_error() -> None:
    # One "word" of a thousand bytes, as in languages written without spaces.
    found = intervals(Totals(np.array([5000.0]), np.array([900]), np.array([1000]), np.array([1])))
    assert found["word_perplexity"].value == math.inf
    assert math.isfinite(found["bits_per_byte"].high)


def test_share_with_full_context() -> None:
    assert full_context_share([12, 6], context=11) == 1.0
    # Texts of 20 and 4 tokens; from bos and the first 5 of them the 6th is predicted, too.
    assert full_context_share([22, 6], context=6) == pytest.approx(10 / 24)


def test_loss_by_position_keeps_the_mean() -> None:
    rng = np.random.default_rng(2)
    documents = [-rng.random(length) for length in (2, 9, 40, 200)]
    curve = loss_by_position({"a": documents, "b": [2 * d for d in documents]}, least=1)
    weights = np.array(curve["tokens"])
    assert weights.sum() == sum(len(d) - 1 for d in documents)
    mean = -np.concatenate([d[:-1] for d in documents]).mean()
    assert np.average(curve["a"], weights=weights) == pytest.approx(mean)
    np.testing.assert_allclose(curve["b"], 2 * np.array(curve["a"]))
    assert curve["position"] == sorted(curve["position"])
    assert curve["position"][0] == 1.0


def test_loss_by_position_finds_where_the_loss_falls() -> None:
    documents = [np.concatenate([np.full(10, -4.0), np.full(30, -1.0)]) for _ in range(20)]
    curve = loss_by_position({"model": documents})
    early = [loss for at, loss in zip(curve["position"], curve["model"], strict=True) if at <= 8]
    assert early == [4.0] * len(early)
    assert curve["model"][-1] == 1.0
