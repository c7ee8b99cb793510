# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A tiny model with the ingredients of each public family, and some that none has."""

from tests.tiny import SHAPES, VOCAB_SIZE

from openllm.nn.config import (
    AttentionConfig,
    GeGLUConfig,
    ModelConfig,
    ReluSquaredConfig,
    ResearchConfig,
    RopeConfig,
    SwiGLUConfig,
)
from openllm.nn.norm import LayerNormConfig, RMSNormConfig
from openllm.nn.rope_scaling import Llama3Scaling, LongRopeScaling, YarnScaling

GEMMA = ModelConfig(
    vocab_size=VOCAB_SIZE,
    dim=48,
    num_layers=3,
    max_positions=128,
    embed_scale=48**0.5,
    norm=RMSNormConfig(unit_offset=True),
    norm_placement="both",
    mlp=GeGLUConfig(hidden_dim=80),
)

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
    "gemma2": GEMMA.model_copy(
        update={
            "logit_softcap": 30.0,
            "attention": AttentionConfig(
                num_heads=4,
                num_kv_heads=2,
                head_dim=16,
                qk_norm=False,
                scale=0.3,
                softcap=2.0,
                window=4,
                window_layers=(0, 2),
            ),
        }
    ),
    "gemma3": GEMMA.model_copy(
        update={
            "position": RopeConfig(theta=1_000_000.0, window_theta=10_000.0),
            "attention": AttentionConfig(
                num_heads=4, num_kv_heads=1, head_dim=16, window=6, window_layers=(0, 1)
            ),
        }
    ),
    "olmo2": ModelConfig(
        vocab_size=VOCAB_SIZE,
        dim=48,
        num_layers=2,
        max_positions=128,
        tie_embeddings=False,
        norm_placement="post",
        position=RopeConfig(scaling=YarnScaling(factor=4, original_max_positions=32)),
        attention=AttentionConfig(num_heads=3, head_dim=16, qk_norm_over="all"),
        mlp=SwiGLUConfig(hidden_dim=96),
    ),
    "smollm3": ModelConfig(
        vocab_size=VOCAB_SIZE,
        dim=48,
        num_layers=4,
        max_positions=128,
        position=RopeConfig(unrotated_layers=(3,)),
        attention=AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=12, qk_norm=False),
        mlp=SwiGLUConfig(hidden_dim=96),
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
