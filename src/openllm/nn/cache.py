# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Keys and values of the tokens a model has already read."""

# B batch, L layers, S capacity, T new tokens, N query heads, K kv heads, H head dim

from typing import Protocol

import torch
from torch import Tensor

from openllm.nn.config import ModelConfig
from openllm.nn.kernels.attention import ScoreRule, attend


class Cache(Protocol):
    """Where a forward pass puts its keys and values, and finds those of earlier tokens.

    Attributes:
        lengths: tokens that each row has, before the present ones.
    """

    lengths: list[int]

    def write(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> None:
        """Store one layer's keys and values of the present tokens."""
        ...

    def attend(self, layer: int, q_BTNH: Tensor, rule: ScoreRule) -> Tensor:
        """Attend from the present tokens, whose keys are written, to all before and themselves."""
        ...

    def advance(self, tokens: int) -> None:
        """Note that all layers have written so many tokens."""
        ...


class KVCache:
    """A dense cache whose rows may hold different numbers of tokens."""

    def __init__(
        self,
        cfg: ModelConfig,
        batch: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        heads, head_dim = cfg.attention.kv_heads, cfg.attention.head_dim
        shape = (cfg.num_layers, batch, capacity, heads, head_dim)
        self.k_LBSKH = torch.zeros(shape, dtype=dtype, device=device)
        self.v_LBSKH = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = [0] * batch

    def write(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> None:
        """Store one layer's new keys and values after each row's current length."""
        for row, start in enumerate(self.lengths):
            end = start + k_BTKH.shape[1]
            self.k_LBSKH[layer, row, start:end] = k_BTKH[row]
            self.v_LBSKH[layer, row, start:end] = v_BTKH[row]

    def read(self, layer: int, row: int, length: int) -> tuple[Tensor, Tensor]:
        """Return the first `length` keys and values of a row, each (length, K, H)."""
        return self.k_LBSKH[layer, row, :length], self.v_LBSKH[layer, row, :length]

    def attend(self, layer: int, q_BTNH: Tensor, rule: ScoreRule) -> Tensor:
        """See `Cache.attend`."""
        new, out = q_BTNH.shape[1], []
        for row, before in enumerate(self.lengths):
            k, v = self.read(layer, row, before + new)
            q_NTH, k_KSH, v_KSH = (x.transpose(0, 1) for x in (q_BTNH[row], k, v))
            out.append(attend(q_NTH[None], k_KSH[None], v_KSH[None], rule)[0].transpose(0, 1))
        return torch.stack(out)

    def advance(self, tokens: int) -> None:
        """Lengthen every row by `tokens`, after all layers have written them."""
        self.lengths = [length + tokens for length in self.lengths]

    def copy_row(self, source: "KVCache", source_row: int, row: int) -> None:
        """Copy a row from another cache."""
        length = source.lengths[source_row]
        self.k_LBSKH[:, row, :length] = source.k_LBSKH[:, source_row, :length]
        self.v_LBSKH[:, row, :length] = source.v_LBSKH[:, source_row, :length]
        self.lengths[row] = length

    def keep_rows(self, rows: list[int]) -> None:
        """Drop all rows but these."""
        self.k_LBSKH = self.k_LBSKH[:, rows]
        self.v_LBSKH = self.v_LBSKH[:, rows]
        self.lengths = [self.lengths[row] for row in rows]
