# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openllm.core.errors import ConfigError, EngineError
from openllm.engine.request import SamplingParams
from openllm.engine.sampler import Choice, Row, SamplerState, TokenCounts, choose

PROBS = [0.05, 0.4, 0.1, 0.3, 0.15]
"""Order by probability: 1, 3, 4, 2, 0."""
LOGITS = torch.tensor(PROBS).log()
DRAWS = 1000
NOTHING = torch.empty(0, dtype=torch.int64)


def state(size: int, seen: Sequence[int] = (), said: Sequence[int] = (), **wishes: Any):
    made = SamplerState(SamplingParams(**wishes), seen, vocab_size=size)
    for token in said:
        made.add(token)
    return made


def pick(logits: torch.Tensor, seen: Sequence[int] = (), said: Sequence[int] = (), **wishes: Any):
    """The choice for one row."""
    row = Row(state(len(logits), seen, said, **wishes), 0, NOTHING)
    return choose(logits[None].clone(), [row])[0]


def draw(
    logits: torch.Tensor = LOGITS,
    seen: Sequence[int] = (),
    said: Sequence[int] = (),
    count: int = DRAWS,
    **wishes: Any,
) -> list[int]:
    """Many tokens, each at a different position."""
    shared = state(len(logits), seen, said, **wishes)
    rows = [Row(shared, place, NOTHING) for place in range(count)]
    return [choice.token for choice in choose(logits.repeat(count, 1), rows)]


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
    assert pick(torch.tensor([1.0, 2.0, 2.0]), temperature=0).token == 1


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
    wish = {"temperature": 0, "repetition_penalty": 1.5}
    assert pick(logits, [0, 0], **wish).token == 1
    assert pick(logits, [1], [0], **wish).token == 0
    assert pick(logits, [2], **wish).token == 0
    assert pick(torch.tensor([-1.0, -1.2]), [0], **wish).token == 1
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
    {"typical_p": 1e-12},
    {"typical_p": 5e-324, "temperature": 1e300},
    {"presence_penalty": 2.0, "frequency_penalty": -2.0, "temperature": 1e-300},
    {"logit_bias": {0: 100.0, 1: -100.0, 2: 1e-30, 4: -100.0}, "temperature": 1e-5},
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
    for row in rows:
        assert set(draw(torch.tensor(row), seen, count=50, **wish)) <= {1, 2, 3, 5}


@pytest.mark.parametrize(
    ("p", "kept"), [(0.01, [3]), (0.31, [3, 1]), (0.69, [3, 1]), (0.71, [3, 1, 4]), (1.0, range(5))]
)
def test_typical_p_keeps_what_is_nearest_to_the_entropy(p: float, kept: list[int]) -> None:
    # entropy 1.39; -log p = 3.0, 0.92, 2.30, 1.20, 1.90
    assert fits(draw(typical_p=p), only(*kept))


def test_presence_and_frequency_count_generated_tokens_alone() -> None:
    logits = torch.tensor([1.0, 0.5, 0.0, -0.5])
    seen, said = [0, 1, 2, 3, 3], [1, 2, 2, 2]
    tokens = draw(logits, seen, said, presence_penalty=0.5, frequency_penalty=-0.25)
    weights = [math.exp(value) for value in (1.0, 0.5 - 0.5 + 0.25, -0.5 + 0.75, -0.5)]
    assert fits(tokens, [weight / sum(weights) for weight in weights])


def test_a_bias_is_added_before_penalties() -> None:
    logits = torch.tensor([1.0, -1.0, 0.0])
    tokens = draw(logits, said=[1], logit_bias={1: 3.0, 2: 1.5}, repetition_penalty=2.0)
    weights = [math.exp(value) for value in (1.0, 2.0 / 2, 1.5)]
    assert fits(tokens, [weight / sum(weights) for weight in weights])
    assert set(draw(LOGITS, logit_bias={0: 100.0})) == {0}
    with pytest.raises(ConfigError, match="logit_bias names token 5, which"):
        draw(LOGITS, logit_bias={5: 1.0})


def test_banned_and_masked_tokens_never_come() -> None:
    shared = state(5, logit_bias={1: 100.0, 3: 100.0})
    banned, mask = torch.tensor([1, 4]), torch.tensor([0b10111], dtype=torch.int32)
    rows = [Row(shared, place, banned, mask) for place in range(DRAWS)]
    tokens = [choice.token for choice in choose(LOGITS.repeat(DRAWS, 1), rows)]
    assert fits(tokens, only(0, 2))
    greedy = Row(state(5, temperature=0), 0, banned)
    assert [c.token for c in choose(LOGITS.repeat(2, 1), [greedy, greedy])] == [3, 3]
    assert choose(LOGITS[None].clone(), [greedy._replace(mask=mask)])[0].token == 2


def test_a_row_that_fails_does_not_disturb_the_others() -> None:
    everything = torch.arange(5)
    for temperature in (0.0, 1.0):
        shared = state(5, temperature=temperature)
        logits = LOGITS.repeat(3, 1)
        logits[1, 2] = math.nan
        rows = [Row(shared, 0, everything), Row(shared, 0, NOTHING), Row(shared, 0, NOTHING)]
        first, second, third = choose(logits, rows)
        assert third.failure is None and third.token >= 0
        assert isinstance(first.failure, EngineError) and first.token == -1
        assert "no token is allowed" in str(first.failure)
        assert "not finite numbers" in str(second.failure)
        logits = torch.stack([LOGITS, LOGITS + math.nan])
        alike = [Row(shared, 0, everything)] * 2
        assert all(choice.failure for choice in choose(logits, alike))


def test_logprobs_are_the_models_own() -> None:
    wish = {"temperature": 0.3, "top_k": 2, "logit_bias": {0: 9.0}, "repetition_penalty": 2.0}
    params = {"logprobs": 3, **wish}
    row = Row(state(5, [1, 2], **params), 0, torch.tensor([3]))
    choice = choose(LOGITS[None].clone(), [row])[0]
    assert choice.token == 0
    assert choice.logprob == pytest.approx(math.log(0.05), abs=1e-6)
    assert [token for token, _ in choice.top] == [1, 4, 2]
    expected = [math.log(p) for p in (0.4, 0.15, 0.1)]
    assert [value for _, value in choice.top] == pytest.approx(expected, abs=1e-6)


def test_rows_list_as_many_tokens_as_each_asks_for() -> None:
    wishes = [{"logprobs": 2}, {}, {"logprobs": 0}, {"best_of": 3, "n": 2}, {"logprobs": 99}]
    rows = [Row(state(5, temperature=0, **wish), 0, torch.tensor([0])) for wish in wishes]
    choices = choose(LOGITS.repeat(5, 1), rows)
    assert [len(choice.top) for choice in choices] == [2, 0, 0, 0, 4]
    assert [choice.logprob is None for choice in choices] == [False, True, False, False, False]
    assert {choice.token for choice in choices} == {1}


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_counts_are_of_the_generated_tokens(
    prompt: list[int], said: list[int], later: list[int]
) -> None:
    counts = TokenCounts(prompt)
    for token in said:
        counts.add(token)

    def check(found: TokenCounts, generated: list[int]) -> None:
        assert set(found.used) == {*prompt, *generated}
        assert len(found.used) == len(set(found.used))
        pairs = zip(found.used, found.counts, strict=True)
        assert all(count == generated.count(token) for token, count in pairs)

    check(counts, said)
    check(counts.after(later), [*said, *later])
    check(counts, said)


def test_a_drafted_position_sees_the_drafts_before_it() -> None:
    wish = {"temperature": 0.7, "repetition_penalty": 1.7, "frequency_penalty": 0.3, "seed": 4}
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 30, generator=generator)
    base = state(30, [1, 2, 3], **wish)
    alone: list[int] = []
    for place, row in enumerate(logits):
        alone += [choose(row[None].clone(), [Row(base.after(alone), place, NOTHING)])[0].token]
    stepwise = state(30, [1, 2, 3], **wish)
    for place, token in enumerate(alone):
        assert choose(logits[place][None].clone(), [Row(stepwise, place, NOTHING)]) == [
            Choice(token)
        ]
        stepwise.add(token)
    rows = [Row(base.after(alone[:place]), place, NOTHING) for place in range(12)]
    assert [choice.token for choice in choose(logits.clone(), rows)] == alone


def test_close_models_draw_the_same_token_nearly_always() -> None:
    # with noise of its own each would agree in sum p^2, a quarter of the cases
    near = (torch.tensor(PROBS) + torch.tensor([0.01, -0.01, 0.0, 0.01, -0.01])).log()
    agree = sum(a == b for a, b in zip(draw(), draw(near), strict=True))
    assert agree > 0.95 * DRAWS


def test_samples_of_one_request_differ() -> None:
    params = SamplingParams(seed=3)
    rows = [
        Row(SamplerState(params, [], vocab_size=5, sample=sample), 0, NOTHING)
        for sample in range(DRAWS)
    ]
    assert fits([choice.token for choice in choose(LOGITS.repeat(DRAWS, 1), rows)], PROBS)


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
        {"typical_p": 0},
        {"presence_penalty": 2.1},
        {"logit_bias": {1: 101}},
        {"seed": -1},
        {"seed": 2**63},
        {"temprature": 1},
    ],
)
def test_impossible_wishes_are_refused(wish: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wish))):
        SamplingParams.parse(wish, "sampling settings")
