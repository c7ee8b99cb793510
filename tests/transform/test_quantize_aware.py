# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.tiny import SHAPES, random_model, random_shards
from torch import Tensor
from torch.nn import functional as F

from openllm.data.loader import Batch, TokenLoader
from openllm.nn.model import build_model
from openllm.nn.quantized import Scheme
from openllm.train.loop import Trainer
from openllm.train.objective import NextToken
from openllm.train.optim import AdamWConfig
from openllm.transform.quantize_aware import Rounding

LLAMA = SHAPES["llama"]


def rounding_of(state: Mapping[str, Tensor], bits: int = 4) -> Rounding:
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return Rounding(shapes, bits=bits, group=32)


def test_the_model_sees_what_is_stored_and_keeps_its_own_weights() -> None:
    model = random_model(LLAMA)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rounding = rounding_of(before)
    stored = rounding.matrices(before)
    assert stored["embed_tokens.weight"].bits == stored["lm_head.weight"].bits == 8
    assert stored["layers.0.mlp.up_proj.weight"].scheme == Scheme(4, 32)
    with rounding.applied(model):
        seen = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in before.items():
        wanted = stored[name].dequantize() if name in stored else tensor
        assert seen[name].equal(wanted)
        assert model.state_dict()[name].equal(tensor)


def test_gradients_pass_straight_through() -> None:
    model = random_model(LLAMA)
    name = "layers.1.self_attn.o_proj.weight"
    weight = model.get_parameter(name)
    x = torch.randn(5, weight.shape[1])
    rounding = rounding_of(model.state_dict())
    with rounding.applied(model):
        F.linear(x, weight).square().sum().backward()
    stored = rounding.matrices(model.state_dict())[name].dequantize()
    slope = 2 * F.linear(x, stored).T @ x
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, slope)


def test_weights_come_back_after_an_error() -> None:
    model = random_model(LLAMA)
    before = model.embed_tokens.weight.clone()
    with (
        pytest.raises(RuntimeError, match="mid-step"),
        rounding_of(model.state_dict()).applied(model),
    ):
        raise RuntimeError("mid-step")
    assert model.embed_tokens.weight.equal(before)


def test_rows_that_fit_no_group_are_left() -> None:
    model = random_model(SHAPES["qwen3"])  # 48 wide
    rounding = rounding_of(model.state_dict())
    assert set(rounding.schemes) == {
        f"layers.{layer}.{part}.weight"
        for layer in range(2)
        for part in ("self_attn.o_proj", "mlp.down_proj")
    }
    assert set(rounding.left) == {"embed", "0.qkv", "1.qkv", "0.up", "1.up"}


def train(steps: int, **changes: Any) -> Trainer:
    model = build_model(LLAMA, seed=3)
    loader = TokenLoader(random_shards([20] * 8), seq_len=20, micro_rows=4, seed=0)
    optimizers = AdamWConfig(lr=0.01, weight_decay=0.0).build(model)

    def batches(step: int) -> list[Batch]:
        return loader.batches(8 * step, 8 * step + 8)

    def rate(step: int) -> float:
        return min(1.0, 2 * (1 - step / steps))

    rounding = rounding_of(model.state_dict())
    trainer = Trainer(
        model,
        NextToken(),
        optimizers,
        batches,
        total_steps=steps,
        lr_factor=rate,
        rounding=rounding,
        **changes,
    )
    trainer.fit()
    return trainer


def stored_loss(trainer: Trainer) -> float:
    """Loss of the model as it would be stored."""
    assert trainer.rounding is not None
    with trainer.rounding.applied(trainer.model):
        return sum(trainer.backward(trainer.batches(0)).values())


@pytest.mark.integration
def test_training_with_rounding_makes_better_models_of_four_bits() -> None:
    plain, aware = train(60, round_from=60), train(60, round_from=30)
    whole = sum(plain.backward(plain.batches(0)).values())
    assert whole < stored_loss(aware) < stored_loss(plain)


def test_rounding_begins_at_its_step_and_shows_in_validation() -> None:
    trainer = train(4, round_from=3)
    assert trainer.rounds
    with trainer.averaged() as model:
        seen = model.layers[0].mlp.up_proj.weight.clone()
    assert trainer.rounding is not None
    stored = trainer.rounding.matrices(trainer.best_guess())["layers.0.mlp.up_proj.weight"]
    assert seen.equal(stored.dequantize())
    early = train(4, round_from=5)
    assert not early.rounds
    with early.averaged() as model:
        assert model.layers[0].mlp.up_proj.weight.equal(
            early.best_guess()["layers.0.mlp.up_proj.weight"]
        )


def test_averages_are_rounded_when_they_are_validated() -> None:
    trainer = train(4, round_from=0, ema_decay=0.9)
    assert trainer.ema is not None and trainer.rounding is not None
    name = "layers.1.self_attn.q_proj.weight"
    with trainer.averaged() as model:
        seen = model.get_parameter(name).clone()
    assert seen.equal(trainer.rounding.matrices(trainer.ema)[name].dequantize())
    assert not model.get_parameter(name).equal(seen)
