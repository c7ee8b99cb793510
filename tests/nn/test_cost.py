# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Parameter and FLOP counts against torch's."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import SHAPES, make_batch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from openllm.nn.cache import KVCache
from openllm.nn.config import (
    AttentionConfig,
    GeluConfig,
    LearnedPositionConfig,
    ModelConfig,
    ReluSquaredConfig,
    ResearchConfig,
    RopeConfig,
    SwiGLUConfig,
)
from openllm.nn.context import AttentionContext
from openllm.nn.cost import forward_flops, kv_cache_bytes, parameters, train_flops
from openllm.nn.heads import logits
from openllm.nn.model import Transformer, build_model
from openllm.nn.norm import LayerNormConfig, RMSNormConfig
from openllm.recipes.build import CONFIGS, load_config
from openllm.train.objective import NextToken

ATEN = torch.ops.aten


def _attention(q: Any, k: Any, *rest: Any, **named: Any) -> int:
    # heads of a group share their keys; torch counts each query head
    return sdpa_flop_count(q, (q[0], q[1], *k[2:]), (q[0], q[1], *k[2:]))


def _attention_backward(grad: Any, q: Any, k: Any, *rest: Any, **named: Any) -> int:
    wide = (q[0], q[1], *k[2:])
    return sdpa_backward_flop_count(grad, q, wide, wide)


ON_CPU = {
    ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Torch counts attention on GPUs only; the formulas are its own."""

configs = st.builds(
    ModelConfig,
    vocab_size=st.integers(2, 50),
    dim=st.integers(2, 24),
    num_layers=st.integers(1, 4),
    max_positions=st.integers(1, 40),
    tie_embeddings=st.booleans(),
    norm=st.sampled_from([RMSNormConfig(), LayerNormConfig()]),
    position=st.sampled_from([RopeConfig(), LearnedPositionConfig()]),
    attention=st.builds(
        lambda groups, kv, half, qk_norm, bias: AttentionConfig(
            num_heads=groups * kv,
            num_kv_heads=kv,
            head_dim=2 * half,
            qk_norm=qk_norm,
            bias=bias,
        ),
        st.integers(1, 3),
        st.integers(1, 3),
        st.integers(1, 5),
        st.booleans(),
        st.booleans(),
    ),
    mlp=st.one_of(
        st.builds(SwiGLUConfig, hidden_dim=st.integers(1, 40)),
        st.builds(GeluConfig, hidden_dim=st.integers(1, 40)),
        st.builds(ReluSquaredConfig, hidden_dim=st.integers(1, 40)),
    ),
    research=st.builds(
        ResearchConfig,
        unet_skips=st.booleans(),
        embedding_mix=st.booleans(),
        value_embeddings=st.booleans(),
    ),
)


@settings(max_examples=60)
@given(configs)
def test_parameters_are_exact(cfg: ModelConfig) -> None:
    with torch.device("meta"):
        model = Transformer(cfg)
    count = parameters(cfg)
    named = {name: p.numel() for name, p in model.named_parameters()}
    assert count.total == sum(named.values())
    assert count.embeddings == sum(n for name, n in named.items() if name.startswith("embed_"))
    assert count.mlp == sum(n for name, n in named.items() if ".mlp." in name)
    assert count.attention == sum(n for name, n in named.items() if "_proj" in name) - count.mlp
    assert count.norms == sum(n for name, n in named.items() if "norm" in name)
    assert count.research == sum(n for name, n in named.items() if name.startswith("research."))
    assert count.head == named.get("lm_head.weight", 0)


@pytest.mark.parametrize(
    ("name", "vocab_size", "millions"),
    [
        ("tiny", 2048, 3.9),
        ("small", 32_000, 36.8),
        ("medium", 32_000, 116.6),
        ("large", 32_000, 360),
    ],
)
def test_presets_have_the_size_they_say(name: str, vocab_size: int, millions: float) -> None:
    cfg = load_config(name).model.model_copy(update={"vocab_size": vocab_size})
    assert parameters(cfg).total / 1e6 == pytest.approx(millions, rel=0.03)
    assert cfg.attention.head_dim == 64 and cfg.tie_embeddings
    assert f"{parameters(cfg).total / 1e6:.0f}M" in (CONFIGS / f"{name}.yaml").read_text()


def counted(cfg: ModelConfig, lengths: list[int], *, train: bool) -> int:
    """FLOPs that torch counts in one row of documents of these lengths."""
    model = build_model(cfg)
    batch = make_batch([[5] * length for length in lengths], sum(lengths))
    with FlopCounterMode(display=False, custom_mapping=ON_CPU) as counter:
        if train:
            NextToken().terms(model, batch)["loss"].sum.backward()
        else:
            context = AttentionContext(batch.cu_seqlens)
            positions = torch.from_numpy(batch.positions)
            states = model(torch.from_numpy(batch.tokens), positions=positions, attn=context).x
            logits(states, model.head)
    return counter.get_total_flops()


@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize("lengths", [[64], [16, 16], [5, 21, 1, 40]])
def test_operations_are_exact(name: str, lengths: list[int]) -> None:
    cfg = SHAPES[name]
    assert counted(cfg, lengths, train=False) == forward_flops(cfg, lengths)
    assert counted(cfg, lengths, train=True) == train_flops(cfg, lengths)


def test_the_cache_has_the_size_it_says() -> None:
    cfg = SHAPES["qwen3"]
    cache = KVCache(cfg, batch=3, capacity=17)
    size = cache.k_LBSKH.nbytes + cache.v_LBSKH.nbytes
    assert size == kv_cache_bytes(cfg, 3 * 17)
