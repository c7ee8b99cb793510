# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

from pathlib import Path

import pytest
import torch
from tests.tiny import SHAPES
from tests.tolerances import assert_close

from openllm.checkpoint.families.registry import OWN, architecture
from openllm.checkpoint.model_dir import load_model, write_model
from openllm.nn.cache import KVCache
from openllm.nn.config import ModelConfig, ReluSquaredConfig, ResearchConfig
from openllm.nn.context import AttentionContext
from openllm.nn.model import Transformer, build_model
from openllm.train.optim import MuonConfig

ALL = ResearchConfig(unet_skips=True, embedding_mix=True, value_embeddings=True)
PLAIN = SHAPES["qwen3"].model_copy(update={"num_layers": 5})
SHAPE = PLAIN.model_copy(update={"research": ALL, "mlp": ReluSquaredConfig(hidden_dim=96)})
TOKENS = torch.arange(24).reshape(2, 12) * 37 % PLAIN.vocab_size


def stirred(cfg: ModelConfig = SHAPE) -> Transformer:
    """A model with non-zero gains."""
    model = build_model(cfg)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("research."):
                parameter.normal_(0.0, 0.5, generator=generator)
    return model


@torch.no_grad()
def test_it_begins_as_the_plain_model() -> None:
    with_gains = build_model(PLAIN.model_copy(update={"research": ALL}))
    assert with_gains(TOKENS).x.equal(build_model(PLAIN)(TOKENS).x)


@pytest.mark.parametrize("ingredient", ["unet_skips", "embedding_mix", "value_embeddings"])
def test_each_ingredient_changes_the_model_and_learns(ingredient: str) -> None:
    cfg = PLAIN.model_copy(update={"research": ResearchConfig(**{ingredient: True})})
    model = stirred(cfg)
    states = model(TOKENS).x
    assert not states.allclose(build_model(PLAIN)(TOKENS).x)
    states.square().mean().backward()
    own = {name: p for name, p in model.named_parameters() if name.startswith("research.")}
    assert own and all(p.grad is not None and p.grad.any() for p in own.values())


@torch.no_grad()
def test_cached_reading_is_a_full_forward_pass() -> None:
    model = stirred().eval()
    cache = KVCache(SHAPE, batch=2, capacity=12)
    parts = [model(piece, cache=cache).x for piece in TOKENS.split([5, 1, 6], dim=1)]
    assert_close(torch.cat(parts, 1), model(TOKENS).x)


@torch.no_grad()
def test_documents_do_not_see_each_other() -> None:
    model = stirred().eval()
    together = model(TOKENS[:1], attn=AttentionContext((0, 5, 12)), positions=_positions(5, 7)).x
    apart = [model(piece).x for piece in TOKENS[:1].split([5, 7], dim=1)]
    assert_close(together, torch.cat(apart, 1))


def _positions(*lengths: int) -> torch.Tensor:
    return torch.cat([torch.arange(length) for length in lengths])[None]


def test_a_folder_holds_it_for_openllm_alone(tmp_path: Path, tokenizer_folder: Path) -> None:
    assert architecture(SHAPE) == OWN
    assert architecture(PLAIN.model_copy(update={"mlp": SHAPE.mlp})) == OWN
    model = stirred()
    folder = tmp_path / "model"
    weights = dict(model.state_dict())
    write_model(folder, SHAPE, weights, tokenizer=tokenizer_folder, lineage={}, card="")
    again = load_model(folder)
    assert again.cfg.research == ALL
    assert all(again.state_dict()[name].equal(value) for name, value in weights.items())


def test_muon_leaves_it_to_adamw() -> None:
    model = build_model(SHAPE)
    muon, adamw = MuonConfig().build(model)
    own = {id(p) for name, p in model.named_parameters() if name.startswith("research.")}
    assert not own & {id(p) for group in muon.param_groups for p in group["params"]}
    assert own <= {id(p) for group in adamw.param_groups for p in group["params"]}


def test_value_embeddings_need_tokens() -> None:
    model = build_model(SHAPE)
    with pytest.raises(ValueError, match="needs tokens"):
        model(embeds=torch.zeros(1, 3, SHAPE.dim))
