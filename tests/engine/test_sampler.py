# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openllm.core.errors import ConfigError
from openllm.engine.request import SamplingParams
from openllm.engine.sampler import choose, uniform

PROBS = [0.05, 0.4, 0.1, 0.3, 0.15]
"""Order by probability: 1, 3, 4, 2, 0."""
LOGITS = torch.tensor(PROBS).log()
DRAWS = 1000


def draw(logits: torch.Tensor = LOGITS, seen: list[int] | None = None, **wishes: Any) -> list[int]:
    """Many tokens, each at a different position."""
    params = SamplingParams(**wishes)
    return [choose(logits, params, seen=seen or [], position=place) for place in range(DRAWS)]


def shares(tokens: list[int], size: int = 5) -> list[float]:
    return [tokens.count(token) / len(tokens) for token in range(size)]


def fits(tokens: list[int], probs: list[float]) -> bool:
    """Whether the frequencies pass a chi-square test; 30 is beyond 0.99999 for up to 5 classes."""
    counts = [tokens.count(token) for token in range(len(probs))]
    assert all(count == 0 for count, prob in zip(counts, probs, strict=True) if prob == 0)
    expected = [len(tokens) * prob for prob in probs]
    return sum((c - e) ** 2 / e for c, e in zip(counts, expected, strict=True) if e) < 30


def only(*kept: int) -> list[float]:
    """The distribution over these tokens alone."""
    mass = sum(PROBS[token] for token in kept)
    return [PROBS[token] / mass if token in kept else 0.0 for token in range(5)]


def test_plain_sampling_follows_the_distribution() -> None:
    assert fits(draw(), PROBS)
    assert not fits(draw(), [0.1, 0.35, 0.1, 0.3, 0.15])


def test_temperature_zero_takes_the_best_and_the_first_of_equals() -> None:
    assert set(draw(temperature=0)) == {1}
    assert (
        choose(torch.tensor([1.0, 2.0, 2.0]), SamplingParams(temperature=0), seen=[], position=0)
        == 1
    )


def test_temperature_sharpens_and_flattens() -> None:
    sharp = [prob**2 for prob in PROBS]
    assert fits(draw(temperature=0.5), [prob / sum(sharp) for prob in sharp])
    flat = [prob**0.5 for prob in PROBS]
    assert fits(draw(temperature=2.0), [prob / sum(flat) for prob in flat])


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300])
def test_very_low_temperatures_take_the_best(temperature: float) -> None:
    logits = torch.tensor([1e4, -1e4, 1.1e4, 0.0])
    assert set(draw(logits, temperature=temperature)) == {2}


@pytest.mark.parametrize(
    ("k", "kept"),
    [(1, [1]), (2, [1, 3]), (4, [1, 3, 4, 2]), (5, range(5)), (99, range(5)), (0, range(5))],
)
def test_top_k_keeps_the_k_best(k: int, kept: list[int]) -> None:
    assert fits(draw(top_k=k), only(*kept))


@pytest.mark.parametrize(
    ("p", "kept"),
    [(0.01, [1]), (0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.71, [1, 3, 4]), (1.0, range(5))],
)
def test_top_p_keeps_the_smallest_set_of_that_mass(p: float, kept: list[int]) -> None:
    assert fits(draw(top_p=p), only(*kept))


@pytest.mark.parametrize(
    ("p", "kept"), [(0.0, range(5)), (0.3, [1, 3, 4]), (0.5, [1, 3]), (1.0, [1])]
)
def test_min_p_drops_what_is_far_below_the_best(p: float, kept: list[int]) -> None:
    assert fits(draw(min_p=p), only(*kept))


def test_filters_work_one_after_the_other() -> None:
    # of the three best (0.47, 0.35, 0.18 of their mass) the first two reach 0.8
    assert fits(draw(top_k=3, top_p=0.8), only(1, 3))
    # top-p sees the sharpened distribution, in which the best token alone has 0.57
    assert set(draw(temperature=0.5, top_p=0.5)) == {1}


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    logits = torch.tensor([2.0, 1.9, -1.0, -1.1])
    greedy = SamplingParams(temperature=0, repetition_penalty=1.5)
    assert choose(logits, greedy, seen=[0, 0], position=0) == 1
    assert choose(logits, greedy, seen=[2], position=0) == 0
    assert choose(torch.tensor([-1.0, -1.2]), greedy, seen=[0], position=0) == 1
    assert logits.tolist() == pytest.approx([2.0, 1.9, -1.0, -1.1])
    weights = [math.exp(value) for value in (2.0 / 1.5, 1.9, -1.5, -1.1)]
    tokens = draw(logits, seen=[0, 2], repetition_penalty=1.5)
    assert fits(tokens, [weight / sum(weights) for weight in weights])


def test_forbidden_tokens_never_come() -> None:
    logits = LOGITS.clone()
    logits[[1, 3]] = -math.inf
    assert fits(draw(logits), only(0, 2, 4))
    assert 1 not in draw(logits, temperature=100.0, repetition_penalty=0.5, seen=[1])


EXTREME: list[dict[str, Any]] = [
    {"temperature": 1e-8},
    {"temperature": 5e-324},
    {"temperature": 1e8},
    {"temperature": 1.7e308},
    {"top_p": 1e-12},
    {"top_p": 5e-324},
    {"min_p": 1.0},
    {"min_p": 5e-324},
    {"top_k": 10**9},
    *({"repetition_penalty": penalty} for penalty in (1e6, 1e-6, 1e300, 1e-300, 1.7e308, 5e-324)),
    {"repetition_penalty": 1e300, "temperature": 0},
    {"repetition_penalty": 5e-324, "temperature": 1e-300, "top_p": 1e-12, "min_p": 1.0},
    {"repetition_penalty": 1.7e308, "temperature": 1.7e308, "top_p": 1e-12, "min_p": 1.0},
]


@pytest.mark.parametrize("wish", EXTREME, ids=str)
@pytest.mark.parametrize("seen", [[], [2], [0, 1, 2, 3, 4, 5]], ids=["new", "one", "all"])
def test_extreme_wishes_give_tokens_that_are_allowed(wish: dict[str, Any], seen: list[int]) -> None:
    rows = [
        [-math.inf, 3.0, -2.0, 0.0, -math.inf, 88.0],
        [-math.inf, -1.0, -2.0, -3.0, -math.inf, -1e30],
        [-math.inf, 0.0, 0.0, 0.0, -math.inf, 0.0],
        [-math.inf, 3e38, -3e38, 1e-38, -math.inf, -1e-38],
    ]
    params = SamplingParams(**wish)
    for row in rows:
        for place in range(50):
            token = choose(torch.tensor(row), params, seen=seen, position=place)
            assert token in (1, 2, 3, 5)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40))
def test_random_numbers_are_a_function_of_seed_and_position(seed: int, position: int) -> None:
    number = uniform(seed, position)
    assert 0 <= number < 1
    assert number == uniform(seed, position)
    assert number != uniform(seed + 1, position)
    assert number != uniform(seed, position + 1)


def test_neighbouring_seeds_and_positions_are_independent() -> None:
    grid = torch.tensor([[uniform(seed, place) for place in range(60)] for seed in range(60)])
    assert grid.mean().item() == pytest.approx(0.5, abs=0.02)
    assert grid.std().item() == pytest.approx(12**-0.5, abs=0.01)
    off = torch.corrcoef(torch.stack([grid[1:].flatten(), grid[:-1].flatten()]))[0, 1]
    assert abs(off) < 0.06


@pytest.mark.parametrize(
    "wish",
    [
        {"temperature": -1},
        {"temperature": math.inf},
        {"temperature": math.nan},
        {"repetition_penalty": math.inf},
        {"top_p": 0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"top_k": -1},
        {"max_new_tokens": 0},
        {"repetition_penalty": 0},
        {"stop": ("",)},
        {"seed": -1},
        {"seed": 2**63},
        {"temprature": 1},
    ],
)
def test_impossible_wishes_are_refused(wish: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wish))):
        SamplingParams.parse(wish, "sampling settings")
