# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import math

import pytest
import torch
from tests.tiny import SHAPES, random_model
from tests.tolerances import assert_close

from openllm.nn.config import RopeConfig
from openllm.nn.context import AttentionContext
from openllm.nn.heads import cross_entropy_sum
from openllm.nn.kernels.rows import norm_rotate
from openllm.nn.model import build_model
from openllm.nn.rope import rotary_table


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_loss_of_an_untrained_model_is_log_of_the_vocabulary(name: str) -> None:
    cfg = SHAPES[name]
    model = build_model(cfg, seed=3)
    tokens = torch.randint(cfg.vocab_size, (8, 65), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = model(tokens[:, :-1]).x.flatten(0, 1)
        loss = cross_entropy_sum(states, model.head, tokens[:, 1:].flatten())
    assert loss.item() / (8 * 64) == pytest.approx(math.log(cfg.vocab_size), abs=0.1)


def test_initial_weights_are_a_function_of_the_seed() -> None:
    cfg = SHAPES["gpt2"]
    first, same, other = (build_model(cfg, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["embed_tokens.weight"], other["embed_tokens.weight"])


def test_initial_weights_have_the_spread_that_the_config_says() -> None:
    cfg = SHAPES["gpt2"].model_copy(update={"dim": 128, "num_layers": 8})
    state = build_model(cfg).state_dict()
    assert state["layers.0.mlp.up_proj.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    residual = state["layers.0.mlp.down_proj.weight"].std().item()
    assert residual == pytest.approx(0.02 / math.sqrt(16), rel=0.05)
    assert not state["layers.0.mlp.up_proj.bias"].any()
    assert (state["layers.0.input_layernorm.weight"] == 1).all()


def test_tied_head_is_the_embedding() -> None:
    tied = build_model(SHAPES["qwen3"])
    assert tied.head.weight is tied.embed_tokens.weight
    separate = build_model(SHAPES["llama"])
    assert separate.head.weight is separate.lm_head.weight


def test_embeddings_may_be_given_in_place_of_tokens() -> None:
    model = random_model(SHAPES["qwen3"]).eval()
    tokens = torch.arange(4, 24).reshape(2, 10)
    embeds = model.embed_tokens(tokens)
    assert torch.equal(model(tokens).x, model(embeds=embeds).x)
    with pytest.raises(ValueError, match="either"):
        model(tokens, embeds)
    with pytest.raises(ValueError, match="either"):
        model()


def test_attention_is_causal() -> None:
    model = random_model(SHAPES["qwen3"]).eval()
    tokens = torch.randint(4, 600, (2, 30), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 20] += 1
    before, after = model(tokens).x, model(changed).x
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 20:], after[:, 20:])


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 16, generator=generator, dtype=torch.float64).unbind()

    def score(at: int, other: int) -> float:
        tables = [rotary_table(torch.tensor([[place]]), 16, RopeConfig()) for place in (at, other)]
        return (
            (norm_rotate(q, None, 0.0, *tables[0]) * norm_rotate(k, None, 0.0, *tables[1]))
            .sum()
            .item()
        )

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-4)
    assert norm_rotate(q, None, 0.0, *rotary_table(torch.tensor([[0]]), 16, RopeConfig())).allclose(
        q
    )


def test_rows_are_the_default_documents() -> None:
    assert AttentionContext.rows(3, 4).cu_seqlens == (0, 4, 8, 12)
    model = random_model(SHAPES["gpt2"]).eval()
    tokens = torch.arange(4, 34).reshape(3, 10)
    together = model(tokens).x
    for row in range(3):
        assert_close(together[row : row + 1], model(tokens[row : row + 1]).x)


def test_dropout_is_off_in_evaluation_and_on_in_training() -> None:
    cfg = SHAPES["qwen3"].model_copy(update={"dropout": 0.5})
    model = random_model(cfg)
    tokens = torch.arange(4, 24)[None]
    assert torch.equal(model.eval()(tokens).x, model(tokens).x)
    assert not torch.equal(model.train()(tokens).x, model(tokens).x)
