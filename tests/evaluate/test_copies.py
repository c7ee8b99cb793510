# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openllm.evaluate import copies
from openllm.evaluate.copies import Copy, longest_copies


def slow_longest(sample: list[int], training: list[int]) -> int:
    """Length of the longest common run, by textbook dynamic programming."""
    best, row = 0, [0] * (len(training) + 1)
    for token in sample:
        row = [0] + [row[j] + 1 if token == training[j] else 0 for j in range(len(training))]
        best = max(best, *row)
    return best


def holds(copy: Copy, sample: list[int], training: list[int]) -> bool:
    here = sample[copy.start : copy.start + copy.length]
    return here == training[copy.position : copy.position + copy.length]


tokens = st.integers(3, 6)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(tokens, max_size=24), min_size=1, max_size=5),
    st.lists(tokens, min_size=1, max_size=90),
    st.integers(1, 100),
)
def test_equals_the_slow_search_at_any_chunk(
    samples: list[list[int]], training: list[int], chunk: int
) -> None:
    found = longest_copies([np.array(s) for s in samples], np.array(training), chunk=chunk)
    for sample, copy in zip(samples, found, strict=True):
        assert copy.length == slow_longest(sample, training)
        assert holds(copy, sample, training)


def test_finds_a_planted_copy_across_the_border_of_chunks() -> None:
    rng = np.random.default_rng(0)
    training = rng.integers(0, 60_000, 20_000).astype(np.uint16)
    sample = rng.integers(0, 60_000, 120)
    sample[30:97] = training[4960:5027]
    found = longest_copies([sample, sample[::-1].copy()], training, chunk=5000)
    assert found[0] == Copy(67, 30, 4960)
    assert found[1].length <= 1


def test_chance_equality_of_hashes_is_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    # Codes that know only whether a token is even: nearly every window collides.
    monkeypatch.setattr(copies, "_codes", lambda t: t.astype(np.uint64) % np.uint64(2))
    rng = np.random.default_rng(1)
    training = rng.integers(3, 30, 300).tolist()
    samples = [rng.integers(3, 30, 20).tolist() for _ in range(4)]
    samples[2][4:15] = training[200:211]
    found = longest_copies([np.array(s) for s in samples], np.array(training), chunk=64)
    for sample, copy in zip(samples, found, strict=True):
        assert copy.length == slow_longest(sample, training)
        assert holds(copy, sample, training)


def test_nothing_to_compare() -> None:
    training = np.arange(10)
    assert longest_copies([], training) == []
    assert longest_copies([np.array([], int)], training) == [Copy()]
    assert longest_copies([np.array([77, 78])], training) == [Copy()]
    assert longest_copies([np.arange(50)], training)[0].length == 10
