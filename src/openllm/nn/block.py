# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""One transformer layer."""

# B batch, T time, D model

from torch import Tensor, nn

from openllm.nn.attention import Attention
from openllm.nn.cache import Cache
from openllm.nn.config import ModelConfig
from openllm.nn.context import AttentionContext
from openllm.nn.mlp import build_mlp

NORMS = {
    "pre": ("input_layernorm", None, "post_attention_layernorm", None),
    "post": (None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
    "both": (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
}
"""Names of the norms before and after attention, before and after the MLP, by placement."""


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream."""

    def __init__(self, cfg: ModelConfig, layer: int) -> None:
        super().__init__()
        self.norms = NORMS[cfg.norm_placement]
        self._add_norm(0, cfg)
        self.self_attn = Attention(cfg, layer)
        self._add_norm(1, cfg)
        self._add_norm(2, cfg)
        self.mlp = build_mlp(cfg)
        self._add_norm(3, cfg)
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        context: AttentionContext,
        cache: Cache | None = None,
        extra_value: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        mixed = self.self_attn(self.norm(0, x_BTD), rope, context, cache, extra_value)
        x_BTD = x_BTD + self.dropout(self.norm(1, mixed))
        return x_BTD + self.dropout(self.norm(3, self.mlp(self.norm(2, x_BTD))))

    def _add_norm(self, place: int, cfg: ModelConfig) -> None:
        if name := self.norms[place]:
            self.add_module(name, cfg.norm.build(cfg.dim))

    def norm(self, place: int, x_BTD: Tensor) -> Tensor:
        """Apply one of the four norms; some placements lack it."""
        name = self.norms[place]
        return x_BTD if name is None else getattr(self, name)(x_BTD)
