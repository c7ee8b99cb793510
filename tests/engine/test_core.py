# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.engine.engines import (
    finish,
    is_empty,
    make_engine,
    make_llm,
    network,
    plain_greedy,
    plain_logits,
    skip_without_kernels,
    tokens,
)
from tests.tiny import SHAPES, random_model

from openllm.core.errors import CheckpointError, ConfigError, EngineError
from openllm.engine.request import Request, SamplingParams
from openllm.engine.runners.torch_runner import TorchRunner
from openllm.engine.sampler import Choice, Row, choose
from openllm.nn.model import Transformer
from openllm.text.load import load_tokenizer
from openllm.text.tokenizer import Tokenizer

GREEDY = SamplingParams(temperature=0, max_new_tokens=12, ignore_eos=True)
PROMPT = tuple(range(10, 30))


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_folder)


def own_model() -> Transformer:
    """`network()` once more, to be changed."""
    return random_model(SHAPES["qwen3"], spread=0.4)


@pytest.mark.parametrize("runner", ["compiled", "exact"])
def test_new_weights_take_effect_at_once_and_running_requests_go_on(
    tokenizer: Tokenizer, runner: str
) -> None:
    skip_without_kernels(runner)
    engine = make_engine(tokenizer, runner, own_model(), max_batch_tokens=24, max_sequences=4)
    old, new = network(), network(seed=5)
    banned = sorted(tokenizer.banned_ids)
    finish(engine, Request("before", PROMPT, GREEDY))
    engine.add(Request("running", PROMPT, GREEDY))
    engine.add(Request("reading", tuple(range(30, 90)), kind="score"))
    updates = [update for _ in range(3) for update in engine.step()]
    written = tokens(updates, "running")
    assert 0 < len(written) < 12 and written == plain_greedy(old, PROMPT, len(written), banned)
    engine.update_weights(new.state_dict().items())
    updates += finish(engine, Request("after", PROMPT, GREEDY))
    text = tokens(updates, "running")
    rest = plain_greedy(new, [*PROMPT, *written], 12 - len(written), banned)
    assert text == [*written, *rest]
    assert tokens(updates, "after") == plain_greedy(new, PROMPT, 12, banned)
    (score,) = [update for update in updates if update.id == "reading"]
    rows = plain_logits(new, range(30, 90)).log_softmax(1)
    expected = [float(row[token]) for row, token in zip(rows, range(31, 90), strict=False)]
    assert [one.logprob for one in score.logprobs or ()] == pytest.approx(expected, abs=1e-3)
    assert is_empty(engine)


def test_refused_weights_leave_no_cached_text(tokenizer: Tokenizer) -> None:
    engine = make_engine(tokenizer, "exact", own_model())
    finish(engine, Request("a", PROMPT, GREEDY))
    weights = network(seed=5).state_dict()
    with pytest.raises(CheckpointError, match="'wrong' has shape"):
        engine.update_weights([*weights.items(), ("wrong", torch.zeros(1))])
    updates = finish(engine, Request("b", PROMPT, GREEDY))
    assert tokens(updates, "b") == plain_greedy(
        network(seed=5), PROMPT, 12, sorted(tokenizer.banned_ids)
    )


@pytest.mark.integration
def test_an_abort_in_any_state_leaves_nothing(tokenizer: Tokenizer) -> None:
    """Waiting, being read, writing, put aside; with continuations that wait for a prefix."""
    for preemption in ("recompute", "swap"):
        for runs in range(0, 16, 3):
            sizes = {"cache_tokens": 128, "max_batch_tokens": 8, "max_sequences": 4}
            engine = make_engine(tokenizer, "torch", preemption=preemption, **sizes)
            params = GREEDY.model_copy(update={"max_new_tokens": 60, "n": 2})
            others = [Request("b", PROMPT, params), Request("c", tuple(range(90)), kind="score")]
            others.append(Request("d", PROMPT[::-1], GREEDY))
            for request in (*others, Request("a", PROMPT, params)):
                engine.add(request)
            for _ in range(4 * runs):
                engine.step()
            engine.abort("a")
            engine.abort("a")
            engine.abort("unknown")
            assert all(update.id != "a" for update in finish(engine))
            assert is_empty(engine)
            for request in (*others, Request("a", PROMPT, params)):
                engine.add(request)
            for _ in range(4 * runs):
                engine.step()
            for name in "dcba":
                engine.abort(name)
            assert is_empty(engine)


def test_an_id_serves_one_request_at_a_time(tokenizer: Tokenizer) -> None:
    engine = make_engine(tokenizer)
    engine.add(Request("a", PROMPT, GREEDY))
    with pytest.raises(ConfigError, match="'a' is running already; choose another id"):
        engine.add(Request("a", PROMPT, GREEDY))
    known = tokens(finish(engine), "a")
    assert tokens(finish(engine, Request("a", PROMPT, GREEDY)), "a") == known


def test_what_cannot_run_is_refused_and_leaves_nothing(tokenizer: Tokenizer) -> None:
    engine = make_engine(tokenizer, cache_tokens=32)
    with pytest.raises(ConfigError, match="the prompt is empty"):
        engine.add(Request("a", (), GREEDY))
    with pytest.raises(ConfigError, match="may have at most 32; shorten"):
        engine.add(Request("a", tuple(range(32)), GREEDY))
    with pytest.raises(ConfigError, match="it may have at most 32; shorten"):
        engine.add(Request("a", tuple(range(33)), kind="embed"))
    for beyond in (640, -1):
        with pytest.raises(ConfigError, match="a token that is none of the 640"):
            engine.add(Request("a", (5, beyond), GREEDY))
    for wrong in ({"logit_bias": {640: 1}}, {"stop_ids": (640,)}, {"stop_ids": (-1,)}):
        with pytest.raises(ConfigError, match="outside the vocabulary"):
            engine.add(Request("a", PROMPT, SamplingParams(n=2, min_new_tokens=1, **wrong)))
    with pytest.raises(ConfigError, match="no adapter 'poems'"):
        engine.add(Request("a", PROMPT, GREEDY, adapter="poems"))
    assert is_empty(engine)
    assert finish(engine, Request("a", tuple(range(32)), kind="embed"))[0].vector


def test_the_cache_bounds_the_text(tokenizer: Tokenizer) -> None:
    engine = make_engine(tokenizer, cache_tokens=32)
    updates = finish(engine, Request("a", PROMPT, SamplingParams(temperature=0, ignore_eos=True)))
    assert len(tokens(updates, "a")) == 12 and updates[-1].finish_reason == "length"


def test_best_of_keeps_the_likeliest(tokenizer: Tokenizer) -> None:
    llm = make_llm(tokenizer, "exact")
    params = SamplingParams(seed=3, n=5, logprobs=0, max_new_tokens=8, ignore_eos=True)
    all_five = llm.generate(["Anna"], params)
    wish = params.model_copy(update={"n": 2, "best_of": 5})
    best = sorted(all_five, key=lambda one: -sum(item.logprob for item in one.logprobs or ()))
    assert llm.generate(["Anna"], wish) == best[:2]
    bare = llm.generate(["Anna"], wish.model_copy(update={"logprobs": None}))
    assert [one.token_ids for one in bare] == [one.token_ids for one in best[:2]]
    assert bare[0].logprobs is None
    with pytest.raises(ConfigError, match="a stream is one continuation"):
        next(llm.stream("Anna", wish))


@pytest.mark.parametrize("wish", [{"n": 3}, {"n": 1, "best_of": 3}])
def test_a_failing_continuation_ends_its_request_alone(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, wish: dict[str, Any]
) -> None:
    engine = make_engine(tokenizer)
    seeds = {"seed": 9, "temperature": 1.0}
    params = GREEDY.model_copy(update=wish | seeds)
    calls = []

    def fails(logits: torch.Tensor, rows: Sequence[Row], best: object) -> list[Choice]:
        choices = choose(logits, rows)
        calls.append(len(rows))
        mine = [at for at, row in enumerate(rows) if row.state.params == params]
        if len(calls) == 4:
            choices[mine[1]] = Choice(-1, failure=EngineError("no token is allowed"))
        return choices

    other = Request("other", PROMPT[::-1], GREEDY)
    known = tokens(finish(engine, other), "other")
    monkeypatch.setattr("openllm.engine.writing.choose", fails)
    updates = finish(engine, Request("a", PROMPT, params), other)
    mine = [update for update in updates if update.id == "a"]
    assert [one.error for one in mine if one.finish_reason] == ["no token is allowed"]
    assert mine[-1].finish_reason == "error", "nothing comes after the failure"
    assert tokens(updates, "other") == known
    assert is_empty(engine)


def test_weights_that_the_kernels_refuse_change_nothing_later(tokenizer: Tokenizer) -> None:
    """Nor do those that came before the refused one."""
    skip_without_kernels("compiled")
    engine = make_engine(tokenizer, "compiled", own_model())
    with pytest.raises(CheckpointError, match="'wrong' has shape"):
        engine.update_weights([*network(seed=5).state_dict().items(), ("wrong", torch.zeros(1))])
    engine.update_weights([("norm.weight", network().state_dict()["norm.weight"])])
    updates = finish(engine, Request("a", PROMPT, GREEDY))
    assert tokens(updates, "a") == plain_greedy(network(), PROMPT, 12, sorted(tokenizer.banned_ids))


def test_capped_logits_that_are_equal_give_the_same_token_in_any_company(
    tokenizer: Tokenizer,
) -> None:
    skip_without_kernels("compiled")
    shape = SHAPES["qwen3"].model_copy(update={"logit_softcap": 0.01})
    engine = make_engine(tokenizer, "compiled", random_model(shape, spread=0.4))
    alone = tokens(finish(engine, Request("a", PROMPT, GREEDY)), "a")
    sampled = GREEDY.model_copy(update={"temperature": 1.0})
    updates = finish(engine, Request("a", PROMPT, GREEDY), Request("b", PROMPT, sampled))
    assert tokens(updates, "a") == alone


def test_less_than_no_alternatives_are_refused(tokenizer: Tokenizer) -> None:
    """Before they fail in a step, with all that runs beside them."""
    engine = make_engine(tokenizer)
    with pytest.raises(ConfigError, match="top=-1 alternatives"):
        engine.add(Request("a", PROMPT, kind="score", top=-1))
    assert is_empty(engine)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("broken", "call"), [("forward", 12), ("logits", 12), ("save", 1), ("restore", 1)]
)
def test_a_failing_step_can_be_cleared_away(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, broken: str, call: int
) -> None:
    """Even in the middle of putting a sequence aside."""
    settings = {"cache_tokens": 64, "max_sequences": 2, "preemption": "swap"}
    engine = make_engine(tokenizer, **settings)
    params = GREEDY.model_copy(update={"max_new_tokens": 30})
    requests = [Request("a", PROMPT, params), Request("b", PROMPT[::-1], params)]
    known = finish(engine, *requests)
    assert engine.stats().preemptions
    original, left = getattr(TorchRunner, broken), iter(range(1, 1000))

    def fails(*args: Any) -> Any:
        if next(left) == call:
            raise RuntimeError("out of memory")
        return original(*args)

    monkeypatch.setattr(TorchRunner, broken, fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        finish(engine, *requests)
    engine.reset()
    assert is_empty(engine)
    assert strip(finish(engine, *requests)) == strip(known)


def strip(updates: Sequence[Any]) -> list[Any]:
    return [(update.id, update.token_ids, update.finish_reason) for update in updates]


def test_the_end_may_not_come_early(tokenizer: Tokenizer) -> None:
    engine = make_engine(tokenizer)
    eager = dict.fromkeys(tokenizer.end_ids, 100.0)
    params = SamplingParams(logit_bias=eager, min_new_tokens=5, stop_ids=(400,))
    updates = finish(engine, Request("a", PROMPT, params))
    assert len(tokens(updates, "a")) == 5 and updates[-1].finish_reason == "stop"


@pytest.mark.parametrize("runner", ["compiled", "exact", "torch", "bf16"])
def test_numbers_that_are_not_finite_end_a_request_and_harm_nothing_later(
    tokenizer: Tokenizer, runner: str
) -> None:
    skip_without_kernels(runner)
    engine = make_engine(tokenizer, runner, own_model(), cache_tokens=256)
    requests = [Request(str(start), PROMPT[start:], GREEDY) for start in range(4)]
    known = strip(finish(engine, *requests))
    good = {name: weight.clone() for name, weight in own_model().state_dict().items()}
    engine.update_weights((name, torch.full_like(good[name], torch.nan)) for name in good)
    kinds: list[Any] = ["generate", "score", "embed"] * 4
    wishes = [Request(f"{i}", tuple(range(60)), GREEDY, kind) for i, kind in enumerate(kinds)]
    updates = finish(engine, *wishes)
    assert len(updates) == len(wishes)
    for update in updates:
        assert update.finish_reason == "error" and "not finite numbers" in (update.error or "")
    assert is_empty(engine)
    engine.update_weights(good.items())
    assert strip(finish(engine, *requests)) == known
