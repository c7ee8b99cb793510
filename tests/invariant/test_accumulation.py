# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A step in k micro-batches of b rows is a step of k x b rows."""

import pytest
import torch
from tests.tiny import SHAPES, random_model, random_shards
from tests.tolerances import assert_gradients_close

from openllm.data.loader import TokenLoader
from openllm.train.loop import Trainer
from openllm.train.objective import NextToken
from openllm.train.optim import AdamWConfig

ROWS, SEQ_LEN = 8, 32
# the first rows hold many short documents and so fewer targets
LENGTHS = [*[3] * 40, *[90] * 12, *[2] * 30, *[64] * 4]


def gradients(micro_rows: int) -> tuple[float, dict[str, torch.Tensor]]:
    model = random_model(SHAPES["qwen3"])
    loader = TokenLoader(
        random_shards(LENGTHS),
        seq_len=SEQ_LEN,
        micro_rows=micro_rows,
        seed=1,
    )
    batches = loader.batches(0, ROWS)
    optimizers = AdamWConfig().build(model)
    trainer = Trainer(
        model, NextToken(), optimizers, lambda _: batches, total_steps=1, lr_factor=lambda _: 1.0
    )
    targets = {batch.num_targets / batch.tokens.size for batch in batches}
    assert micro_rows == ROWS or len(targets) > 1, "micro-batches should differ in targets"
    loss = trainer.backward(batches)["loss"]
    return loss, {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("micro_rows", [1, 2, 3, 4])
def test_micro_batches_add_up_to_the_batch(micro_rows: int) -> None:
    whole_loss, whole = gradients(ROWS)
    loss, parts = gradients(micro_rows)
    assert loss == pytest.approx(whole_loss, rel=1e-6)
    assert_gradients_close(parts, whole)


def test_the_loss_is_the_mean_over_all_targets_of_the_step() -> None:
    model = random_model(SHAPES["qwen3"])
    loader = TokenLoader(random_shards(LENGTHS), seq_len=SEQ_LEN, micro_rows=2, seed=1)
    objective = NextToken()
    batches = loader.batches(0, ROWS)
    with torch.no_grad():
        sums = [objective.terms(model, batch)["loss"].sum.item() for batch in batches]
    count = sum(batch.num_targets for batch in batches)
    assert objective.counts(batches) == {"loss": count}
    assert gradients(2)[0] == pytest.approx(sum(sums) / count, rel=1e-6)
