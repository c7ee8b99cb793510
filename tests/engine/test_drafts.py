# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import SHAPES, random_model

from openllm.engine.config import EngineConfig, SpeculationConfig
from openllm.engine.drafts import NgramProposer, matching
from openllm.engine.llm import LLM
from openllm.engine.request import SamplingParams, Structure
from openllm.text.load import load_tokenizer

TOKENS = st.lists(st.integers(0, 3), max_size=60)


def reference(tokens: list[int], k: int, min_n: int, max_n: int) -> list[int]:
    """By search: the latest earlier place of the longest match."""
    for size in range(min(max_n, len(tokens)), min_n - 1, -1):
        for place in range(len(tokens) - 1, size - 1, -1):
            if tokens[place - size : place] == tokens[len(tokens) - size :]:
                longer = list(tokens)
                while len(longer) < len(tokens) + k:
                    longer.append(longer[len(longer) - len(tokens) + place])
                return longer[len(tokens) :]
    return []


@given(TOKENS, st.integers(1, 3), st.integers(0, 2), st.integers(1, 6))
def test_guesses_are_what_a_search_finds(tokens: list[int], min_n: int, more: int, k: int) -> None:
    found = NgramProposer(min_n, min_n + more).propose(tokens, k)
    assert found == reference(tokens, k, min_n, min_n + more)


@given(TOKENS, st.lists(st.integers(1, 5), min_size=1), st.integers(1, 6))
def test_a_text_that_grows_gives_the_same_guesses(
    tokens: list[int], steps: list[int], k: int
) -> None:
    proposer, end = NgramProposer(1, 3), 0
    while end < len(tokens):
        end += steps[end % len(steps)]
        found = proposer.propose(tokens[:end], k)
        expected = reference(tokens[:end], k, 1, 3)
        assert bool(found) == bool(expected)
        assert found == expected[: len(found)]


def test_the_longest_match_counts_and_of_those_the_latest() -> None:
    tokens = [1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3]
    assert NgramProposer(2, 3).propose(tokens, 2) == [7, 9]
    assert NgramProposer(2, 2).propose(tokens, 2) == [8, 1]
    assert NgramProposer(2, 4).propose([1, 2, 3, 4], 4) == []
    assert NgramProposer().propose([], 4) == []


def test_a_loop_goes_on_beyond_the_end() -> None:
    assert NgramProposer().propose([5, 1, 2, 3, 1, 2, 3, 1, 2], 7) == [3, 1, 2, 3, 1, 2, 3]


def test_wrong_guesses_get_shorter_and_right_ones_longer() -> None:
    proposer, tokens = NgramProposer(1, 1), [1, 2, 3, 4, 5, 6, 7, 8, 1]
    lengths = []
    for right in (0, 1, 2, 5, 8):
        guess = proposer.propose(tokens, 8)
        lengths.append(len(guess))
        # a token that never stood before ends each guess, then the beginning comes again
        tokens = [*tokens, *guess[:right], 100 + right]
        proposer.propose(tokens, 8)
        tokens = [*tokens, 1]
    assert lengths == [8, 1, 3, 3, 7]


@pytest.mark.parametrize(
    ("guess", "came", "right"),
    [([], [], 0), ([1], [], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 9, 3], 1), ([1], [2], 0)],
)
def test_matching_counts_up_to_the_first_difference(
    guess: list[int], came: list[int], right: int
) -> None:
    assert matching(guess, came) == right


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="min_n=3 and max_n=2"):
        NgramProposer(3, 2)


def test_texts_are_the_same_with_and_without_guesses(tokenizer_folder: Path) -> None:
    tokenizer, model = load_tokenizer(tokenizer_folder), random_model(SHAPES["qwen3"])
    plain, guessing = (
        LLM(
            model,
            tokenizer,
            # exact: rounding must not decide, whatever else is in a batch
            EngineConfig(precision="fp32", cache_tokens=4096, exact=True, speculation=speculation),
        )
        for speculation in (None, SpeculationConfig(tokens=5))
    )
    prompts = ["Anna found a lamp. Anna found a", "Emma " * 8, "On day 3 Boris asked"] * 3
    wishes = [
        SamplingParams(max_new_tokens=60, temperature=0, ignore_eos=True),
        SamplingParams(max_new_tokens=60, temperature=0.3, seed=2, top_p=0.9),
        SamplingParams(max_new_tokens=60, temperature=0.5, logprobs=2, repetition_penalty=0.7),
        SamplingParams(max_new_tokens=60, temperature=0, frequency_penalty=-0.1, n=2),
        SamplingParams(max_new_tokens=60, structure=Structure(kind="regex", value="(ab|c)+d")),
        *[SamplingParams(max_new_tokens=60, temperature=0.2, seed=i) for i in range(4)],
    ]
    expected = plain.generate(prompts, wishes)
    found = guessing.generate(prompts, wishes)
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    assert [one.finish_reason for one in found] == [one.finish_reason for one in expected]
    assert [one.logprobs for one in found] == [one.logprobs for one in expected]
    assert guessing.stats().accepted_tokens > 50
