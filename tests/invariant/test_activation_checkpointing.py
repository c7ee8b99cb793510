# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Recomputed activations give the same numbers as stored ones."""

import pytest
import torch
from tests.tiny import SHAPES, random_model, random_shards

from openllm.data.loader import TokenLoader
from openllm.nn.cache import KVCache
from openllm.train.loop import Trainer
from openllm.train.objective import NextToken
from openllm.train.optim import AdamWConfig
from openllm.transform.memory import checkpoint_activations
from openllm.transform.precision import Precision


def step(
    *, checkpointed: bool, precision: Precision, dropout: float
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of a step of two micro-batches."""
    cfg = SHAPES["qwen3"].model_copy(update={"dropout": dropout})
    model = random_model(cfg)
    if checkpointed:
        checkpoint_activations(model)
    shards = random_shards([7, 40, 33, 20, 60, 25])
    loader = TokenLoader(shards, seq_len=32, micro_rows=2, seed=0)
    batches = loader.batches(0, 4)
    trainer = Trainer(
        model,
        NextToken(),
        AdamWConfig().build(model),
        lambda _: batches,
        total_steps=1,
        lr_factor=lambda _: 1.0,
        precision=precision,
    )
    model.train()
    loss = trainer.backward(batches)["loss"]
    return loss, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_loss_and_gradients_are_bitwise_the_same(precision: Precision, dropout: float) -> None:
    loss, kept = step(checkpointed=False, precision=precision, dropout=dropout)
    again, twice = step(checkpointed=True, precision=precision, dropout=dropout)
    assert loss == again
    for name, gradient in kept.items():
        assert torch.equal(gradient, twice[name]), name


def test_dropout_has_an_effect_here() -> None:
    without, _ = step(checkpointed=True, precision="fp32", dropout=0.0)
    dropped, _ = step(checkpointed=True, precision="fp32", dropout=0.3)
    assert without != dropped


@torch.no_grad()
def test_a_checkpointed_model_still_reads_with_a_cache() -> None:
    tokens = torch.arange(4, 20)[None]
    plain = random_model(SHAPES["qwen3"]).eval()
    model = checkpoint_activations(random_model(SHAPES["qwen3"])).eval()
    caches = [KVCache(model.cfg, 1, 16) for _ in range(2)]
    again = model(tokens, cache=caches[0]).x
    assert torch.equal(again, plain(tokens, cache=caches[1]).x)
