# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Causal self-attention that never crosses document boundaries."""

# B batch, T time, D model, N query heads, K kv heads, H head dim

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openllm.nn.cache import Cache
from openllm.nn.config import ModelConfig
from openllm.nn.context import AttentionContext
from openllm.nn.kernels.attention import ScoreRule, attention
from openllm.nn.kernels.rows import norm_rotate
from openllm.nn.rms_norm import RMSNorm


def wide(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalise in float32, whatever the dtype of the input and of the norm's weights."""
    if isinstance(norm, nn.LayerNorm):
        weights = (None if w is None else w.float() for w in (norm.weight, norm.bias))
        return F.layer_norm(x.float(), norm.normalized_shape, *weights, norm.eps).to(x.dtype)
    return norm(x.float()).to(x.dtype)


class Attention(nn.Module):
    """Projections, optional QK norm, rotary embedding, attention, output projection."""

    def __init__(self, cfg: ModelConfig, layer: int) -> None:
        super().__init__()
        shape = cfg.attention
        self.layer = layer
        self.head_dim = shape.head_dim
        query, key = shape.num_heads * shape.head_dim, shape.kv_heads * shape.head_dim
        scale = shape.head_dim**-0.5 if shape.scale is None else shape.scale
        self.rule = ScoreRule(scale, shape.softcap, shape.window_of(layer))
        self.q_proj = nn.Linear(cfg.dim, query, bias=shape.bias)
        self.k_proj = nn.Linear(cfg.dim, key, bias=shape.bias)
        self.v_proj = nn.Linear(cfg.dim, key, bias=shape.bias)
        self.o_proj = nn.Linear(query, cfg.dim, bias=shape.has_output_bias)
        self.norm_all = shape.qk_norm_over == "all"
        widths = (query, key) if self.norm_all else (shape.head_dim, shape.head_dim)
        self.q_norm, self.k_norm = (
            cfg.norm.build(width) if shape.qk_norm else None for width in widths
        )

    def forward(
        self,
        x_BTD: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        context: AttentionContext,
        cache: Cache | None,
        extra_value: Tensor | None = None,
    ) -> Tensor:
        """Attend within each document, (B, T, D)."""
        q_BTNH = self.place(self.q_proj(x_BTD), self.q_norm, rope)
        k_BTKH = self.place(self.k_proj(x_BTD), self.k_norm, rope)
        v_BTKH = self.v_proj(x_BTD).unflatten(-1, (-1, self.head_dim))
        if extra_value is not None:
            v_BTKH = v_BTKH + extra_value.to(v_BTKH.dtype)
        if cache is None:
            rows = (x.flatten(0, 1) for x in (q_BTNH, k_BTKH, v_BTKH))
            with torch.autocast(x_BTD.device.type, enabled=False):
                out_BTNH = attention(*rows, context, self.rule).view_as(q_BTNH)
        else:
            cache.write(self.layer, k_BTKH, v_BTKH)
            out_BTNH = cache.attend(self.layer, q_BTNH, self.rule)
        return self.o_proj(out_BTNH.flatten(2))

    def place(
        self, x_BTD: Tensor, norm: nn.Module | None, rope: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Split into heads (B, T, N, H), normalise and rotate by position."""
        if norm is not None and self.norm_all:
            x_BTD, norm = wide(norm, x_BTD), None
        x_BTNH = x_BTD.unflatten(-1, (-1, self.head_dim))
        gain, eps = None, 0.0
        if rope is not None and isinstance(norm, RMSNorm) and self._rotates_all(rope):
            gain, eps = norm.gain, norm.eps
        elif norm is not None:
            x_BTNH = wide(norm, x_BTNH)
        if rope is None:
            return x_BTNH
        if not self._rotates_all(rope):
            dim = 2 * rope[0].shape[-1]
            rotated = norm_rotate(x_BTNH[..., :dim].flatten(0, 1), None, 0.0, *rope)
            return torch.cat((rotated.view_as(x_BTNH[..., :dim]), x_BTNH[..., dim:]), dim=-1)
        return norm_rotate(x_BTNH.flatten(0, 1), gain, eps, *rope).view_as(x_BTNH)

    def _rotates_all(self, rope: tuple[Tensor, Tensor]) -> bool:
        return 2 * rope[0].shape[-1] == self.head_dim
