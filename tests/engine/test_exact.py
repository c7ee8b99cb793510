# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What a request gets does not depend on how it is computed: the same bits in every way."""

import asyncio
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
from tests.engine.engines import make_llm, network, plain_greedy, skip_without_kernels
from tests.tiny import SHAPES, sentences

from openllm.engine.llm import LLM, completion
from openllm.engine.request import Completion, Request, SamplingParams, Update
from openllm.text.load import load_tokenizer
from openllm.text.tokenizer import Tokenizer

COMMON = "Anna found a lamp in the harbour. On day 3 Boris asked Anna for it."
PROMPTS = ["Anna", f"{COMMON} Emma", f"{COMMON} On day 17 Felix", "", sentences(3, 5)[2], COMMON]
PROMPTS += ["On day 3 Boris asked", f"{COMMON} {COMMON[:30]}", "Boris"]
LONG = {"max_new_tokens": 20, "ignore_eos": True}
WISHES = [
    SamplingParams(temperature=0, logprobs=2, **LONG),
    SamplingParams(seed=7, n=2, **LONG),
    SamplingParams(seed=8, top_p=0.8, temperature=1.3, **LONG),
    SamplingParams(temperature=0, repetition_penalty=1.3, frequency_penalty=0.5, **LONG),
    SamplingParams(seed=9, n=2, logprobs=0, top_k=20, **LONG),
    SamplingParams(seed=10, min_p=0.05, typical_p=0.9, stop=("e",), max_new_tokens=30),
    SamplingParams(seed=11, n=2, best_of=3, **LONG),
    SamplingParams(temperature=0, max_new_tokens=2),
    # a text of two tokens, of which much is guessed
    SamplingParams(seed=12, logit_bias={300: 100, 301: 100}, presence_penalty=0.2, **LONG),
]
WAYS: dict[str, dict[str, Any]] = {
    "batched": {},
    "in parts": {"max_batch_tokens": 8, "max_sequences": 4},
    "computed again": {"cache_tokens": 128, "preemption": "recompute"},
    "put aside": {"cache_tokens": 128, "preemption": "swap"},
    "in parts, put aside": {"cache_tokens": 128, "preemption": "swap", "max_batch_tokens": 64},
    "prefixes": {"prefix_cache": True},
    "prefixes, computed again": {"prefix_cache": True, "cache_tokens": 144},
    "prefixes, put aside": {"prefix_cache": True, "cache_tokens": 144, "preemption": "swap"},
    "guessed": {"speculation": {"tokens": 3}, "prefix_cache": True},
    "guessed, computed again": {"speculation": {"tokens": 3}, "cache_tokens": 128},
}


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Any) -> Tokenizer:
    return load_tokenizer(tokenizer_folder)


@pytest.mark.integration
@pytest.mark.parametrize("runner", ["compiled", "exact", "torch"])
@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_text_is_that_of_a_plain_loop(tokenizer: Tokenizer, shape: str, runner: str) -> None:
    skip_without_kernels(runner)
    llm = make_llm(tokenizer, runner, shape, max_batch_tokens=64)
    found = llm.generate(PROMPTS, WISHES[0])
    banned = sorted(tokenizer.banned_ids)
    for one in found:
        ids = one.prompt_token_ids
        assert one.token_ids == plain_greedy(network(shape), ids, 20, banned)


def alone(llm: LLM) -> list[Completion]:
    """Each request by itself."""
    pairs = zip(PROMPTS, WISHES, strict=True)
    return [one for prompt, wish in pairs for one in llm.generate([prompt], [wish])]


@pytest.fixture(scope="module")
def expected(tokenizer: Tokenizer) -> Callable[..., list[Completion]]:
    """What each request gets by itself."""

    @cache
    def find(runner: str, shape: str = "qwen3") -> list[Completion]:
        return alone(make_llm(tokenizer, runner, shape, prefix_cache=False))

    return find


PAIRS: list[Any] = [
    pytest.param("exact", shape, marks=pytest.mark.integration)
    for shape in ("qwen3", "gpt2", "gemma2")
]
PAIRS += [("compiled", shape) for shape in SHAPES] + [
    (kind, "qwen3") for kind in ("bf16", "int8", "int4")
]


@pytest.mark.integration
@pytest.mark.parametrize(("runner", "shape"), PAIRS)
def test_all_ways_give_the_same_bits(
    tokenizer: Tokenizer, expected: Callable[..., list[Completion]], runner: str, shape: str
) -> None:
    skip_without_kernels(runner)
    known = expected(runner, shape)
    for name, settings in WAYS.items():
        llm = make_llm(tokenizer, runner, shape, **{"prefix_cache": False} | settings)
        assert llm.generate(PROMPTS, WISHES) == known, name
        stats = llm.stats()
        assert stats.free_blocks == stats.blocks and not stats.running + stats.waiting, name
        displaced = "again" in name or "aside" in name
        assert bool(stats.preemptions) == displaced, name
        assert bool(stats.drafted_tokens) == ("guessed" in name), name
        if name == "prefixes":
            assert stats.cached_tokens
            assert llm.generate(PROMPTS, WISHES) == known, "found in the cache"
            assert llm.stats().cached_tokens > 2 * stats.cached_tokens


@pytest.mark.integration
@pytest.mark.parametrize("runner", ["compiled", "exact"])
def test_backwards_and_by_streams_it_is_the_same(
    tokenizer: Tokenizer, runner: str, expected: Callable[..., list[Completion]]
) -> None:
    skip_without_kernels(runner)
    llm = make_llm(tokenizer, runner)
    found = llm.generate(PROMPTS[::-1], WISHES[::-1])
    parts = [found[at : at + WISHES[i].n] for i, at in starts(range(len(WISHES))[::-1])]
    assert [one for part in parts[::-1] for one in part] == expected(runner)
    for number, at in starts(range(len(WISHES))):
        if WISHES[number].samples == 1:
            pieces = llm.stream(PROMPTS[number], WISHES[number])
            assert "".join(pieces) == expected(runner)[at].text


def starts(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Each request, and the place of its first completion if they run in this order."""
    places, at = [], 0
    for number in numbers:
        places.append((number, at))
        at += WISHES[number].n
    return places


@pytest.mark.integration
@pytest.mark.parametrize("runner", ["compiled", "exact"])
@pytest.mark.parametrize("settings", [{}, {"cache_tokens": 128, "preemption": "swap"}])
def test_through_the_backend_it_is_the_same(
    tokenizer: Tokenizer,
    runner: str,
    expected: Callable[..., list[Completion]],
    settings: dict[str, Any],
) -> None:
    skip_without_kernels(runner)
    llm = make_llm(tokenizer, runner, **settings)

    async def ask(number: int) -> list[Completion]:
        updates: list[list[Update]] = [[] for _ in range(WISHES[number].n)]
        async for update in llm.backend().generate(PROMPTS[number], WISHES[number]):
            updates[update.index].append(update)
        ids = [*tokenizer.prefix, *tokenizer.encode(PROMPTS[number])]
        request = Request("", ids, WISHES[number])
        return [completion(request, part) for part in updates]

    async def main() -> list[list[Completion]]:
        try:
            return await asyncio.gather(*map(ask, range(len(WISHES))))
        finally:
            await llm.backend().close()

    parts = asyncio.run(main())
    assert [one for part in parts for one in part] == expected(runner)


@pytest.mark.parametrize("runner", ["compiled", "exact"])
def test_the_seed_decides(tokenizer: Tokenizer, runner: str) -> None:
    skip_without_kernels(runner)
    llm = make_llm(tokenizer, runner)
    params = SamplingParams(seed=3, n=2, **LONG)
    first, second = llm.generate(["Anna"], params)
    assert first.token_ids != second.token_ids, "each continuation has its own random numbers"
    assert llm.generate(["Anna"], params.model_copy(update={"n": 1})) == [first]
    other = llm.generate(["Anna"], params.model_copy(update={"seed": 4}))
    assert first not in other and second not in other
    largest = llm.generate(["Anna"] * 2, params.model_copy(update={"seed": 2**63 - 1, "n": 1}))
    assert largest[1] == llm.generate(["Anna"], params.model_copy(update={"seed": 0, "n": 1}))[0]
