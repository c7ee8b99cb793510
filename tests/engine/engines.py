# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Small engines, and the plain loop that they are compared with."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from tests.tiny import SHAPES, random_model

from openllm.engine.assemble import assemble
from openllm.engine.config import EngineConfig
from openllm.engine.core import ModelEngine
from openllm.engine.llm import LLM
from openllm.engine.request import Request, Update
from openllm.nn.heads import logits
from openllm.nn.kernels.library import available
from openllm.nn.model import Transformer
from openllm.text.tokenizer import Tokenizer

RUNNERS = {
    "compiled": {"precision": "fp32", "kernels": True},
    "exact": {"precision": "fp32", "kernels": False, "exact": True},
    "torch": {"precision": "fp32", "kernels": False},
    "bf16": {"precision": "bf16", "kernels": True},
    "int8": {"precision": "int8", "kernels": True},
    "int4": {"precision": "int4", "kernels": True},
}
"""Settings that choose what runs the model."""


@cache
def network(shape: str = "qwen3", seed: int = 0) -> Transformer:
    """A model whose text is not one token over and over; not to be changed."""
    return random_model(SHAPES[shape], seed, spread=0.4)


def config(runner: str, **settings: Any) -> EngineConfig:
    """Settings of a small engine."""
    return EngineConfig.model_validate({"cache_tokens": 2048} | RUNNERS[runner] | settings)


def make_llm(tokenizer: Tokenizer, runner: str, shape: str = "qwen3", **settings: Any) -> LLM:
    """An engine over `network(shape)`."""
    return LLM(network(shape), tokenizer, config(runner, **settings))


def make_engine(
    tokenizer: Tokenizer,
    runner: str = "exact",
    model: Transformer | None = None,
    **settings: Any,
) -> ModelEngine:
    """An engine without what is around it; give it a model of its own to change the weights."""
    cfg = config(runner, **settings)
    return assemble(model or network(), tokenizer, cfg, name="model")[0]


@torch.no_grad()
def plain_logits(model: Transformer, ids: Sequence[int]) -> torch.Tensor:
    """(T, V): without cache and batch."""
    return logits(model(torch.tensor([list(ids)])).x[0], model.head)


def plain_greedy(
    model: Transformer, ids: Sequence[int], count: int, banned: Sequence[int]
) -> list[int]:
    """The likeliest next tokens, one by one."""
    text = list(ids)
    for _ in range(count):
        scores = plain_logits(model, text)[-1]
        scores[list(banned)] = -torch.inf
        text.append(int(scores.argmax()))
    return text[len(ids) :]


def finish(engine: ModelEngine, *requests: Request) -> list[Update]:
    """Add requests and run all to their ends."""
    for request in requests:
        engine.add(request)
    updates = []
    while engine.has_work():
        updates += engine.step()
    return updates


def tokens(updates: Sequence[Update], request_id: str, index: int = 0) -> list[int]:
    """What a continuation has written."""
    mine = [update for update in updates if (update.id, update.index) == (request_id, index)]
    return [token for update in mine for token in update.token_ids]


def is_empty(engine: ModelEngine) -> bool:
    """Whether nothing of any request is left."""
    stats = engine.stats()
    return (
        stats.free_blocks == stats.blocks
        and not stats.running + stats.waiting
        and not engine.has_work()
        and not engine._live
    )


def skip_without_kernels(runner: str) -> None:
    """Skip a test of a compiled runner where there is no compiler."""
    if runner not in ("exact", "torch") and not available():
        pytest.skip("needs a compiler")
