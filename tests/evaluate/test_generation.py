# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import numpy as np
import pytest

from openllm.evaluate.generation import choose_prompts, distinct, repetition, text_quality


def test_distinct_counts_over_all_texts() -> None:
    texts = [np.array([1, 2, 3]), np.array([1, 2, 4])]
    assert distinct(texts, 1) == pytest.approx(4 / 6)
    assert distinct(texts, 2) == pytest.approx(3 / 4)  # 12 23 12 24
    assert distinct(texts, 3) == 1.0
    assert distinct(texts, 4) == 0.0


def test_repetition_of_one_text() -> None:
    assert repetition(np.arange(50)) == 0.0
    assert repetition(np.array([7] * 23)) == pytest.approx(1 - 1 / 20)
    # 1 2 3 1 2 3 1 2 3: six 4-grams, three of them new.
    assert repetition(np.tile([1, 2, 3], 3)) == pytest.approx(0.5)
    assert repetition(np.array([1, 2])) == 0.0


def test_prompts_are_beginnings_and_the_rest_follows() -> None:
    documents = [np.arange(100 * i, 100 * i + length) for i, length in enumerate([40, 10, 90, 32])]
    prompts = choose_prompts(documents, 10, length=16, seed=3)
    assert sorted(p.document for p in prompts) == [0, 2, 3], "the second is too short"
    for prompt in prompts:
        assert len(prompt.tokens) == 16
        joined = np.concatenate([prompt.tokens, prompt.rest])
        np.testing.assert_array_equal(joined, documents[prompt.document])
    again = choose_prompts(documents, 2, length=16, seed=3)
    assert [p.document for p in again] == [p.document for p in prompts[:2]]


def test_quality_tells_parrot_stutter_and_fresh_text_apart() -> None:
    rng = np.random.default_rng(0)
    training = rng.integers(3, 500, 5000)
    parrot = [training[i : i + 60] for i in (100, 2000, 4000)]
    stutter = [np.tile(rng.integers(3, 500, 5), 12) for _ in range(3)]
    fresh = [rng.integers(3, 500, 60) for _ in range(3)]
    measured = {}
    for name, texts in (("parrot", parrot), ("stutter", stutter), ("fresh", fresh)):
        measured[name], copies = text_quality(texts, training)
        assert len(copies) == 3
    assert measured["parrot"].copy_max == 60
    assert measured["parrot"].copy_mean == 60
    assert measured["fresh"].copy_max < 5
    assert measured["stutter"].repeated_4 > 0.9
    assert measured["fresh"].repeated_4 == 0
    assert measured["stutter"].distinct_2 < 0.1 < measured["fresh"].distinct_2
    assert measured["fresh"].tokens == 180


def test_quality_without_training_text_or_texts() -> None:
    quality, copies = text_quality([np.arange(9)], None)
    assert copies == []
    assert quality.copy_mean is None
    assert quality.copy_max is None
    nothing, _ = text_quality([], np.arange(9))
    assert (nothing.texts, nothing.distinct_1, nothing.copy_max) == (0, 0.0, None)
