# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""One transformer layer."""

# B batch, T time, D model

from torch import Tensor, nn

from openllm.nn.attention import Attention
from openllm.nn.cache import KVCache
from openllm.nn.config import ModelConfig
from openllm.nn.context import AttentionContext
from openllm.nn.mlp import build_mlp


class Block(nn.Module):
    """Pre-norm attention and MLP, each added to the residual stream."""

    def __init__(self, cfg: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = cfg.norm.build(cfg.dim)
        self.self_attn = Attention(cfg, layer)
        self.post_attention_layernorm = cfg.norm.build(cfg.dim)
        self.mlp = build_mlp(cfg)
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        context: AttentionContext,
        cache: KVCache | None = None,
        extra_value: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        mixed = self.self_attn(self.input_layernorm(x_BTD), rope, context, cache, extra_value)
        x_BTD = x_BTD + self.dropout(mixed)
        return x_BTD + self.dropout(self.mlp(self.post_attention_layernorm(x_BTD)))
