# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from openllm.nn.quantized import Scheme
from openllm.transform.quantize_plan import Choice, plan, total_loss, total_size

FOUR, EIGHT = Scheme(4, 32), Scheme(8, 32)
CHOICES = {
    "a": [Choice(None, 400, 0.0), Choice(EIGHT, 100, 0.01), Choice(FOUR, 50, 0.50)],
    "b": [Choice(None, 400, 0.0), Choice(EIGHT, 100, 0.01), Choice(FOUR, 50, 0.02)],
    "c": [Choice(None, 4000, 0.0), Choice(EIGHT, 1000, 0.02), Choice(FOUR, 500, 0.60)],
}


def bits(found: dict[str, Choice] | None) -> list[int | None]:
    assert found is not None
    return [choice.scheme.bits if choice.scheme else None for choice in found.values()]


def test_under_a_size_the_most_sensitive_part_per_byte_gets_more_bits() -> None:
    assert bits(plan(CHOICES, max_size=600)) == [4, 4, 4]
    assert bits(plan(CHOICES, max_size=650)) == [8, 4, 4]
    assert bits(plan(CHOICES, max_size=1150)) == [8, 4, 8]
    assert bits(plan(CHOICES, max_size=10**6)) == [None, None, None]
    assert plan(CHOICES, max_size=599) is None


def test_under_a_loss_the_model_stays_small() -> None:
    assert bits(plan(CHOICES, max_loss=2)) == [4, 4, 4]
    assert bits(plan(CHOICES, max_loss=1)) == [8, 4, 4]
    assert bits(plan(CHOICES, max_loss=0.06)) == [8, 4, 8]
    assert bits(plan(CHOICES, max_loss=1e-9)) == [None, None, None]


sizes = st.integers(1, 1000)
units = st.dictionaries(
    st.sampled_from("abcdef"),
    st.lists(st.builds(Choice, st.none(), sizes, st.floats(0, 1)), min_size=1, max_size=3),
    min_size=1,
)


@given(units, st.integers(1, 4000))
def test_a_size_is_kept_and_only_refused_if_it_must(
    choices: dict[str, list[Choice]], most: int
) -> None:
    found = plan(choices, max_size=most)
    least = sum(min(choice.size for choice in given) for given in choices.values())
    assert (found is None) == (least > most)
    if found is not None:
        assert total_size(found) <= most and found.keys() == choices.keys()


@given(units, st.floats(0.01, 3))
def test_a_loss_is_kept_and_only_refused_if_it_must(
    choices: dict[str, list[Choice]], most: float
) -> None:
    found = plan(choices, max_loss=most)
    least = min(sum(c.loss for c in chosen) for chosen in product(*choices.values()))
    if found is None:
        assert least > most - 1e-9
    else:
        assert total_loss(found) <= most
