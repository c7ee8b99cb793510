# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The key-value cache in blocks, in plain torch: any model on any device."""

# L layers, P blocks, K kv heads, S tokens, H head dim, N query heads, R rows

import torch
from torch import Tensor
from torch.nn import functional as F

from openllm.engine.runner import Batch
from openllm.nn.config import ModelConfig
from openllm.nn.kernels.attention import ScoreRule, attend


class PagedCache:
    """Keys and values of all layers, each (L, P, K, block size, H)."""

    def __init__(
        self,
        cfg: ModelConfig,
        num_blocks: int,
        block_size: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = cfg.attention
        size = (cfg.num_layers, num_blocks, shape.kv_heads, block_size, shape.head_dim)
        self.k_LPKSH = torch.zeros(size, dtype=dtype, device=device)
        self.v_LPKSH = torch.zeros(size, dtype=dtype, device=device)
        self.block_size = block_size

    def save(self, blocks: list[int]) -> tuple[Tensor, Tensor]:
        """A copy of blocks, in main memory."""
        return self.k_LPKSH[:, blocks].cpu(), self.v_LPKSH[:, blocks].cpu()

    def restore(self, saved: tuple[Tensor, Tensor], blocks: list[int]) -> None:
        """Put a copy into blocks."""
        self.k_LPKSH[:, blocks] = saved[0].to(self.k_LPKSH.device)
        self.v_LPKSH[:, blocks] = saved[1].to(self.v_LPKSH.device)

    def read(self, layer: int, table: list[int], length: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first tokens of a sequence, each (K, length, H)."""
        blocks = table[: -(-length // self.block_size)]
        return tuple(
            x[layer, blocks].transpose(0, 1).flatten(1, 2)[:, :length]
            for x in (self.k_LPKSH, self.v_LPKSH)
        )


class BatchCache:
    """The paged cache as one forward pass over a batch, flattened to one row, sees it."""

    def __init__(self, cache: PagedCache, batch: Batch, *, exact: bool) -> None:
        self.lengths = [0]
        self._cache = cache
        self._exact = exact
        size, row = cache.block_size, 0
        blocks: list[int] = []
        self._parts: list[tuple[int, int, int, list[int]]] = []
        for count, table in zip(batch.counts, batch.tables, strict=True):
            places = batch.positions[row : row + count]
            blocks += [table[place // size] for place in places]
            self._parts.append((row, count, places[0], list(table)))
            row += count
        device = cache.k_LPKSH.device
        self._blocks_R = torch.tensor(blocks, device=device)
        self._slots_R = torch.tensor([place % size for place in batch.positions], device=device)

    def write(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> None:
        """See `Cache.write`."""
        cache, rows = self._cache, len(self._blocks_R)
        for store, new in ((cache.k_LPKSH, k_BTKH), (cache.v_LPKSH, v_BTKH)):
            store[layer, self._blocks_R, :, self._slots_R] = new[0, :rows].to(store.dtype)

    def attend(self, layer: int, q_BTNH: Tensor, rule: ScoreRule) -> Tensor:
        """See `Cache.attend`; rows beyond the batch, which fill up a tile, get zeros."""
        out_RNH = torch.zeros_like(q_BTNH[0])
        singles = [part for part in self._parts if part[1] == 1]
        if len(singles) > 1 and not self._exact and rule.softcap is None and rule.window is None:
            rows = [row for row, *_ in singles]
            out_RNH[rows] = self._attend_singles(layer, q_BTNH[0, rows], singles, rule)
        else:
            singles = []
        for part in self._parts:
            if part[1] == 1 and singles:
                continue
            row, count, start, table = part
            # one token at a time: the order of sums then depends on its position alone
            step = 1 if self._exact else count
            for at in range(0, count, step):
                k_KSH, v_KSH = self._cache.read(layer, table, start + at + step)
                q_NTH = q_BTNH[0, row + at : row + at + step].transpose(0, 1)
                k, v = (x[None].to(q_NTH.dtype) for x in (k_KSH, v_KSH))
                out = attend(q_NTH[None], k, v, rule)[0]
                out_RNH[row + at : row + at + step] = out.transpose(0, 1)
        return out_RNH[None]

    def _attend_singles(
        self,
        layer: int,
        q_RNH: Tensor,
        parts: list[tuple[int, int, int, list[int]]],
        rule: ScoreRule,
    ) -> Tensor:
        """Rows of sequences that compute one token, together: padded to the longest."""
        size = self._cache.block_size
        longest = max(start for _, _, start, _ in parts) // size + 1
        tables = [(table + [0] * longest)[:longest] for *_, table in parts]
        index = torch.tensor(tables, device=q_RNH.device)
        ends = torch.tensor([start + 1 for _, _, start, _ in parts], device=q_RNH.device)
        k, v = (
            x[layer, index].transpose(1, 2).flatten(2, 3).to(q_RNH.dtype)
            for x in (self._cache.k_LPKSH, self._cache.v_LPKSH)
        )
        seen = torch.arange(k.shape[2], device=q_RNH.device) < ends[:, None]
        # what others left there may be no numbers, which even a weight of zero would spread
        for x in (k, v):
            x.masked_fill_(~seen[:, None, :, None], 0)
        return F.scaled_dot_product_attention(
            q_RNH[:, :, None],
            k,
            v,
            attn_mask=seen[:, None, None],
            scale=rule.scale,
            enable_gqa=q_RNH.shape[1] != k.shape[1],
        )[:, :, 0]

    def advance(self, tokens: int) -> None:
        """Nothing: the scheduler counts."""
