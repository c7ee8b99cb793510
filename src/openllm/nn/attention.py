# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Causal self-attention that never crosses the border of a document."""

# B batch, T time, D model, N query heads, K kv heads, H head dim

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openllm.nn.cache import KVCache
from openllm.nn.config import ModelConfig
from openllm.nn.rope import rotate


@dataclass(frozen=True)
class AttentionContext:
    """Where documents begin and end.

    `cu_seqlens` are the borders 0 = c0 < c1 < ... = B * T in the flattened batch; the border of
    a row is always a border. A token attends to earlier tokens between the same two borders.
    """

    cu_seqlens: tuple[int, ...]

    @classmethod
    def rows(cls, batch: int, time: int) -> "AttentionContext":
        """Each row is one document."""
        return cls(tuple(range(0, batch * time + 1, time)))

    @property
    def lengths(self) -> list[int]:
        """Tokens between neighbouring borders."""
        return [end - start for start, end in pairwise(self.cu_seqlens)]


def attend(q_BTNH: Tensor, k_BTKH: Tensor, v_BTKH: Tensor, context: AttentionContext) -> Tensor:
    """Attention inside each document, (B, T, N, H).

    Documents of one length are one batch; else a loop over documents, which on a CPU is faster
    than a mask over the row.
    """
    lengths = context.lengths
    if len(set(lengths)) == 1:
        shape = (len(lengths), lengths[0])
        q, k, v = (x.reshape(*shape, *x.shape[2:]) for x in (q_BTNH, k_BTKH, v_BTKH))
        return _causal(q, k, v).reshape(q_BTNH.shape)
    # split() rather than slices: its gradient is one concatenation instead of a sum of full tensors
    parts = [x.flatten(0, 1).split(lengths) for x in (q_BTNH, k_BTKH, v_BTKH)]
    out = [_causal(q[None], k[None], v[None])[0] for q, k, v in zip(*parts, strict=True)]
    return torch.cat(out).reshape(q_BTNH.shape)


def _causal(q_BTNH: Tensor, k_BTKH: Tensor, v_BTKH: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q_BTNH, k_BTKH, v_BTKH))
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped).transpose(
        1, 2
    )


def attend_cached(q_BTNH: Tensor, cache: KVCache, layer: int) -> Tensor:
    """Attention of T new tokens to all tokens of their row, whose keys are already in the cache."""
    new = q_BTNH.shape[1]
    out = []
    for row, before in enumerate(cache.lengths):
        k, v = cache.read(layer, row, before + new)
        q_NTH, k_KSH, v_KSH = (x.transpose(0, 1) for x in (q_BTNH[row], k, v))
        grouped = q_NTH.shape[0] != k_KSH.shape[0]
        mask = None
        if new > 1 and before > 0:
            mask = torch.ones(new, before + new, dtype=torch.bool, device=q_BTNH.device).tril(
                before
            )
        out.append(
            F.scaled_dot_product_attention(
                q_NTH[None],
                k_KSH[None],
                v_KSH[None],
                attn_mask=mask,
                is_causal=new > 1 and before == 0,
                enable_gqa=grouped,
            )[0].transpose(0, 1)
        )
    return torch.stack(out)


class Attention(nn.Module):
    """Projections, optional query-key norm, rotary positions, attention, output projection."""

    def __init__(self, cfg: ModelConfig, layer: int) -> None:
        super().__init__()
        shape = cfg.attention
        self.layer = layer
        self.head_dim = shape.head_dim
        query, key = shape.num_heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(cfg.dim, query, bias=shape.bias)
        self.k_proj = nn.Linear(cfg.dim, key, bias=shape.bias)
        self.v_proj = nn.Linear(cfg.dim, key, bias=shape.bias)
        self.o_proj = nn.Linear(query, cfg.dim, bias=shape.bias)
        self.q_norm = cfg.norm.build(shape.head_dim) if shape.qk_norm else None
        self.k_norm = cfg.norm.build(shape.head_dim) if shape.qk_norm else None

    def forward(
        self,
        x_BTD: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        context: AttentionContext,
        cache: KVCache | None,
    ) -> Tensor:
        """Mix each token with the earlier tokens of its document, (B, T, D)."""
        q_BTNH = self.q_proj(x_BTD).unflatten(-1, (-1, self.head_dim))
        k_BTKH = self.k_proj(x_BTD).unflatten(-1, (-1, self.head_dim))
        v_BTKH = self.v_proj(x_BTD).unflatten(-1, (-1, self.head_dim))
        if self.q_norm is not None and self.k_norm is not None:
            # under autocast the projections are half precision, what goes through norms is not
            q_BTNH = self.q_norm(q_BTNH.to(x_BTD.dtype))
            k_BTKH = self.k_norm(k_BTKH.to(x_BTD.dtype))
        if rope is not None:
            q_BTNH, k_BTKH = rotate(q_BTNH, rope), rotate(k_BTKH, rope)
        # On a CPU attention in half precision is slower, and its backward pass keeps megabytes of
        # compiled code for every length of a document it has met.
        dtype = v_BTKH.dtype
        if x_BTD.device.type == "cpu":
            dtype = torch.promote_types(dtype, torch.float32)
        q_BTNH, k_BTKH, v_BTKH = q_BTNH.to(dtype), k_BTKH.to(dtype), v_BTKH.to(dtype)
        if cache is None:
            with torch.autocast(x_BTD.device.type, enabled=False):
                out_BTNH = attend(q_BTNH, k_BTKH, v_BTKH, context)
        else:
            cache.write(self.layer, k_BTKH, v_BTKH)
            out_BTNH = attend_cached(q_BTNH, cache, self.layer)
        return self.o_proj(out_BTNH.flatten(2))
