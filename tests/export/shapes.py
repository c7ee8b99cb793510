# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Tiny models with what `SHAPES` lacks of the public families, and with what none has."""

from tests.tiny import SHAPES, VOCAB_SIZE

from openllm.nn.config import (
    AttentionConfig,
    ModelConfig,
    ReluSquaredConfig,
    ResearchConfig,
    RopeConfig,
    SwiGLUConfig,
)
from openllm.nn.norm import LayerNormConfig
from openllm.nn.rope_scaling import Llama3Scaling, LongRopeScaling

FAMILIES = {
    **SHAPES,
    "llama3": SHAPES["llama"].model_copy(
        update={
            "position": RopeConfig(
                theta=500_000.0, scaling=Llama3Scaling(factor=8, original_max_positions=32)
            )
        }
    ),
    "mistral": SHAPES["llama"].model_copy(
        update={
            "attention": AttentionConfig(
                num_heads=6, num_kv_heads=2, head_dim=8, qk_norm=False, window=5
            )
        }
    ),
    "phi3": ModelConfig(
        vocab_size=VOCAB_SIZE,
        dim=48,
        num_layers=2,
        max_positions=128,
        tie_embeddings=False,
        position=RopeConfig(
            fraction=0.5,
            scaling=LongRopeScaling(
                short_factor=(1.0, 1.1, 1.2, 1.3),
                long_factor=(1.0, 2.0, 3.0, 4.0),
                original_max_positions=12,
                factor=4,
            ),
        ),
        attention=AttentionConfig(num_heads=3, head_dim=16, qk_norm=False, window=9),
        mlp=SwiGLUConfig(hidden_dim=96),
    ),
    "own": SHAPES["qwen3"].model_copy(
        update={
            "num_layers": 4,
            "norm": LayerNormConfig(),
            "mlp": ReluSquaredConfig(hidden_dim=64),
            "research": ResearchConfig(unet_skips=True, embedding_mix=True, value_embeddings=True),
        }
    ),
}
"""By name; window, soft cap and original context are shorter than the texts of the tests."""
