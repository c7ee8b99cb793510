# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The random numbers against published ones, and the kernel against plain torch."""

from array import array
from typing import Any

import numpy as np
import pytest
import torch

from openllm.nn.kernels import sampling
from openllm.nn.kernels.library import library
from openllm.nn.kernels.philox import gumbel, philox
from openllm.nn.kernels.sampling import (
    ALL_FORBIDDEN,
    NOT_FINITE,
    RowSettings,
    sample,
    sample_reference,
)

KERNEL = pytest.mark.skipif(library() is None, reason="no kernels on this machine")


@pytest.fixture(params=["kernel", "reference"])
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with each implementation."""
    if request.param == "kernel" and library() is None:
        pytest.skip("no kernels on this machine")
    if request.param == "reference":
        monkeypatch.setattr(sampling, "usable", lambda *_: False)
    return request.param


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # the known answers that the authors publish with Random123
        ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_words(counter: str, key: str, expected: str) -> None:
    def words(text: str) -> list[torch.Tensor]:
        return [torch.tensor(int(word, 16)) for word in text.split()]

    k0, k1 = words(key)
    found = philox(tuple(words(counter)), (k0, k1))
    assert [int(word) for word in found] == [int(word, 16) for word in expected.split()]


def noise(seeds: list[int], positions: list[int], vocab: int = 64) -> np.ndarray:
    return gumbel(seeds, positions, [0] * len(seeds), vocab, torch.device("cpu")).numpy()


def test_noise_has_the_gumbel_distribution() -> None:
    drawn = np.sort(noise([7] * 500, list(range(500)), 200).flatten())
    expected = np.exp(-np.exp(-drawn))
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is beyond 0.999
    distance = np.abs(expected - (np.arange(len(drawn)) + 0.5) / len(drawn)).max()
    assert distance < 1.95 / len(drawn) ** 0.5


def test_noise_of_neighbouring_seeds_positions_samples_and_tokens_is_independent() -> None:
    grid = noise([seed for seed in range(60) for _ in range(60)], [*range(60)] * 60, 8)
    grid = grid.reshape(60, 60, 8)
    for axis in range(3):
        near, far = np.delete(grid, 0, axis), np.delete(grid, -1, axis)
        assert abs(np.corrcoef(near.flatten(), far.flatten())[0, 1]) < 0.03
    seeds, places, device = [5] * 500, list(range(500)), torch.device("cpu")
    first, second = (gumbel(seeds, places, [s] * 500, 8, device).numpy() for s in (0, 1))
    assert abs(np.corrcoef(first.flatten(), second.flatten())[0, 1]) < 0.06


def test_noise_uses_every_bit_of_seed_and_position() -> None:
    base = noise([0], [0])
    for bit in range(63):
        assert (noise([1 << bit], [0]) != base).all()
    for bit in range(32):
        assert (noise([0], [1 << bit]) != base).all()


def random_row(rng: np.random.Generator, vocab: int) -> RowSettings:
    """Settings of which each is off in about half of the rows."""

    def some(value: Any, off: Any) -> Any:
        return value if rng.random() < 0.5 else off

    def ids(most: int) -> list[int]:
        return rng.choice(vocab, int(rng.integers(0, most + 1)), replace=False).tolist()

    used, biased = ids(vocab // 2), ids(vocab // 4)
    words = torch.from_numpy(rng.integers(-(2**31), 2**31, (vocab + 31) // 32, dtype=np.int64))
    return RowSettings(
        position=int(rng.integers(0, 2**31)),
        sample=int(rng.integers(0, 9)),
        seed=int(rng.integers(0, 2**63 - 1)),
        temperature=float(some(rng.choice([0, 0.3, 0.9, 2.0]), 1.0)),
        top_k=int(some(rng.integers(1, 2 * vocab), 0)),
        top_p=float(some(rng.uniform(0.01, 0.999), 1.0)),
        min_p=float(some(rng.uniform(0, 0.5), 0.0)),
        typical_p=float(some(rng.uniform(0.1, 0.999), 1.0)),
        repetition=float(some(rng.uniform(0.5, 2), 1.0)),
        presence=float(some(rng.uniform(-2, 2), 0.0)),
        frequency=float(some(rng.uniform(-2, 2), 0.0)),
        num_top=int(rng.integers(-1, 12)),
        banned=torch.tensor(ids(vocab // 8), dtype=torch.int64),
        mask=some(words.to(torch.int32), None),
        used=array("i", used),
        counts=array("i", rng.integers(0, 4, len(used)).tolist()),
        bias_ids=array("i", biased),
        bias=array("f", rng.normal(0, 5, len(biased)).tolist()),
    )


@pytest.mark.integration
@KERNEL
@pytest.mark.parametrize("vocab", [5, 64, 100, 643, 5000, 32003])
@pytest.mark.parametrize("spread", [0.05, 1.0, 5.0])
def test_kernel_equals_plain_torch(vocab: int, spread: float, threads: int) -> None:
    rng = np.random.default_rng(vocab + threads)
    rows = [random_row(rng, vocab) for _ in range(40 if vocab < 10_000 else 8)]
    logits = torch.from_numpy(rng.normal(0, spread, (len(rows), vocab)).astype(np.float32))
    expected = sample_reference(logits, rows)
    actual = sample(logits.clone(), rows)
    wanted = torch.tensor([row.num_top >= 0 for row in rows]) & (expected.tokens_R >= 0)
    torch.testing.assert_close(
        actual.logprobs_R[wanted], expected.logprobs_R[wanted], atol=2e-6, rtol=2e-6
    )
    assert torch.equal(actual.best_RN, expected.best_RN)
    listed = expected.best_RN >= 0
    torch.testing.assert_close(
        actual.best_logprobs_RN[listed], expected.best_logprobs_RN[listed], atol=2e-6, rtol=2e-6
    )
    # a filter may cut between two tokens that differ by less than a float's last bits
    assert (actual.tokens_R != expected.tokens_R).sum() <= len(rows) // 20


@pytest.mark.integration
@KERNEL
@pytest.mark.parametrize(
    "wish", [{}, {"top_k": 50}, {"top_p": 0.6}, {"min_p": 0.001}, {"top_k": 900, "top_p": 0.99}]
)
def test_kernel_draws_exactly_what_plain_torch_draws(wish: dict[str, Any], threads: int) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(200, 2500, generator=generator) * 2
    rows = [RowSettings(place, seed=place, **wish) for place in range(200)]
    expected = sample_reference(logits, rows).tokens_R
    assert torch.equal(sample(logits.clone(), rows).tokens_R, expected)
    assert len(set(expected.tolist())) > 40


def test_equals_at_a_threshold_are_kept_in_order_of_id(both: str) -> None:
    logits = torch.zeros(1, 1200)
    best = {*range(7, 1200, 10)}
    logits[0, 7::10] = 1.0
    for wish, kept in (
        ({"top_k": 3}, {7, 17, 27}),
        ({"top_k": 122}, {*best, 0, 1}),
        ({"min_p": 1.0}, best),
        # each of the best has 0.00193, each other one 0.00071 and is nearer to the entropy
        ({"top_p": 0.005}, {7, 17, 27}),
        ({"typical_p": 0.0019}, {0, 1, 2}),
    ):
        rows = [RowSettings(place, **wish) for place in range(400)]
        found = set(sample(logits.repeat(400, 1), rows).tokens_R.tolist())
        assert found <= kept
        assert len(found) >= 0.9 * len(kept)


def test_rows_do_not_depend_on_each_other(both: str, threads: int) -> None:
    rng = np.random.default_rng(3)
    rows = [random_row(rng, 700) for _ in range(60)]
    logits = torch.from_numpy(rng.normal(0, 2, (60, 700)).astype(np.float32))
    together = sample(logits.clone(), rows)
    for index, row in enumerate(rows):
        alone = sample(logits[index : index + 1].clone(), [row])
        assert alone.tokens_R[0] == together.tokens_R[index]
        if row.num_top >= 0 and alone.tokens_R[0] >= 0:
            assert alone.logprobs_R[0] == together.logprobs_R[index]
    order = list(rng.permutation(60))
    shuffled = sample(logits[order].clone(), [rows[index] for index in order])
    assert torch.equal(shuffled.tokens_R, together.tokens_R[order])


def test_rows_without_a_token_say_why(both: str) -> None:
    logits = torch.zeros(5, 100)
    logits[1, 3], logits[2, 3], logits[4, 3] = torch.nan, torch.inf, -torch.inf
    everything = torch.arange(100)
    settings = [RowSettings(0, temperature=t, top_k=k) for t in (0.0, 1.0) for k in (0, 5)]
    for base in settings:
        rows = [base] * 5
        rows[0] = RowSettings(0, banned=everything, temperature=base.temperature)
        rows[3] = RowSettings(0, mask=torch.tensor([0, 0, 4, 0], dtype=torch.int32))
        tokens = sample(logits.clone(), rows).tokens_R.tolist()
        assert tokens[:4] == [ALL_FORBIDDEN, NOT_FINITE, NOT_FINITE, 66]
        assert tokens[4] >= 0 and tokens[4] != 3


def test_a_mask_shorter_than_the_vocabulary_forbids_the_rest(both: str) -> None:
    rows = [RowSettings(place, mask=torch.tensor([-1], dtype=torch.int32)) for place in range(300)]
    assert sample(torch.zeros(300, 70), rows).tokens_R.max() == 31
