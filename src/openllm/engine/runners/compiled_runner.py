# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Runs a model for the engine with the compiled kernels: one call per step.

A row's result is the same bits whatever else is in the batch.
"""

# W wanted rows, D model, V vocabulary

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openllm.core.errors import CheckpointError
from openllm.engine.config import EngineConfig
from openllm.engine.runner import Batch, Logits
from openllm.engine.runners.paged import PagedCache
from openllm.nn.config import ModelConfig
from openllm.nn.kernels.decoder import Decoder, supports
from openllm.nn.kernels.decoder_step import UNIT, Adapter, RowAdapters
from openllm.nn.kernels.library import available
from openllm.nn.kernels.packed import BEST, GROUPS, Kind, PackedMatrix, pack, pack_quantized
from openllm.nn.quantized import QuantizedTensor, bits_of
from openllm.transform.adapter_bank import AdapterBank

Weight = Tensor | QuantizedTensor


def why_not_compiled(model_cfg: ModelConfig, device: str, cfg: EngineConfig) -> str | None:
    """Why the compiled kernels cannot run a model; none if they can."""
    if not cfg.kernels:
        return "the setting 'kernels' is off"
    if torch.device(device).type != "cpu":
        return "the compiled kernels are for CPUs"
    if cfg.block_size % UNIT:
        return f"block_size={cfg.block_size} is not a multiple of {UNIT}"
    if not available():
        return "the compiled kernels are not available"
    return supports(model_cfg)


class CompiledRunner:
    """Packs the weights as they come, so that a file's weights are never in memory twice.

    Args:
        cfg: the model's shape.
        weights: all of them, by our names; quantized ones keep their integers if they may, or
            become bfloat16 if their groups are too small for the kernels.
        kind: of floating-point matrices, and of quantized ones if it is `fp32` or `bf16`.
    """

    exact = True

    def __init__(self, cfg: ModelConfig, weights: Iterable[tuple[str, Weight]], kind: Kind) -> None:
        self._cfg = cfg
        self._kind: Kind = kind
        matrices: dict[str, PackedMatrix] = {}
        vectors: dict[str, Tensor] = {}
        for name, weight in weights:
            self._put(name, weight, matrices, vectors)
        self._make(matrices, vectors)
        self._adapters: list[Adapter] = []
        self._logits_RV = torch.empty(0, cfg.vocab_size)
        self.cache_dtype = torch.float32 if kind == "fp32" else torch.bfloat16
        shape = cfg.attention
        width = 2 * cfg.num_layers * shape.kv_heads * shape.head_dim
        self.token_bytes = width * self.cache_dtype.itemsize

    @property
    def num_bytes(self) -> int:
        """Memory of the packed weights."""
        return self._decoder.num_bytes

    def allocate(self, num_blocks: int, block_size: int) -> None:
        """See `Runner.allocate`."""
        self._cache = PagedCache(self._cfg, num_blocks, block_size, dtype=self.cache_dtype)

    def forward(self, batch: Batch) -> Tensor:
        """See `Runner.forward`."""
        counts = np.asarray(batch.counts)
        tables = np.zeros((len(counts), max(map(len, batch.tables))), np.int32)
        for row, table in zip(tables, batch.tables, strict=True):
            row[: len(table)] = table
        owners = np.arange(len(counts), dtype=np.int32).repeat(counts)
        adapters = None
        if max(batch.adapters) >= 0:
            indices = np.asarray(batch.adapters, np.int32).repeat(counts)
            adapters = RowAdapters(self._adapters, torch.from_numpy(indices))
        return self._decoder.forward(
            _ints(batch.tokens),
            _ints(batch.positions),
            torch.from_numpy(owners),
            torch.from_numpy(tables),
            self._cache.k_LPKSH,
            self._cache.v_LPKSH,
            _ints(batch.wanted),
            adapters,
            longest=max(batch.positions),
        )

    def logits(self, states_WD: Tensor) -> Logits:
        """See `Runner.logits`."""
        rows = len(states_WD)
        if len(self._logits_RV) < rows:
            # kept: new memory for so many numbers takes longer than a part of the arithmetic
            self._logits_RV = torch.empty(rows, self._cfg.vocab_size)
        if self._cfg.logit_softcap is not None:
            # a cap makes equals of different numbers, of which the kernel would name another
            return Logits(self._decoder.logits(states_WD, self._logits_RV[:rows]))
        best_W = np.empty(rows, BEST)
        return Logits(self._decoder.logits(states_WD, self._logits_RV[:rows], best_W), best_W)

    def save(self, blocks: Sequence[int]) -> Any:
        """See `Runner.save`."""
        return self._cache.save(list(blocks))

    def restore(self, saved: Any, blocks: Sequence[int]) -> None:
        """See `Runner.restore`."""
        self._cache.restore(saved, list(blocks))

    def update(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See `Runner.update`; if one is refused, all stay as they were."""
        matrices, vectors = dict(self._matrices), dict(self._vectors)
        for name, weight in weights:
            old = matrices.get(name, vectors.get(name))
            have = "no such weight" if old is None else tuple(old.shape)
            if tuple(weight.shape) != have:
                raise CheckpointError(
                    f"the new weight '{name}' has shape {tuple(weight.shape)}, but the model has "
                    f"{have}; give weights of the same architecture"
                )
            self._put(name, weight.detach(), matrices, vectors)
        self._make(matrices, vectors)

    def set_adapters(self, bank: AdapterBank) -> None:
        """See `Runner.set_adapters`."""
        names = [name for name in self._matrices if name.startswith("layers.")]
        triples = {name: bank.matrices(name) for name in names}
        self._adapters = [
            Adapter(
                self._cfg, {name: found[i] for name, found in triples.items() if len(found[i][0])}
            )
            for i in range(len(triples[names[0]]))
        ]

    def _kind_of(self, name: str) -> Kind:
        return "int8" if self._kind == "int4" and bits_of(name, 4) == 8 else self._kind

    def _make(self, matrices: dict[str, PackedMatrix], vectors: dict[str, Tensor]) -> None:
        self._decoder = Decoder(self._cfg, matrices, vectors)
        self._matrices, self._vectors = matrices, vectors

    def _put(
        self,
        name: str,
        weight: Weight,
        matrices: dict[str, PackedMatrix],
        vectors: dict[str, Tensor],
    ) -> None:
        """Pack a weight into one of the two."""
        if isinstance(weight, QuantizedTensor):
            if self._kind in ("int8", "int4"):
                found = _regrouped(weight)
                matrices[name] = (
                    pack(weight.dequantize(), "bf16") if found is None else pack_quantized(*found)
                )
                return
            weight = weight.dequantize()
        if weight.ndim == 2 and name != "embed_positions.weight":
            matrices[name] = pack(weight, self._kind_of(name))
        else:
            # a copy: the caller's may change
            vectors[name] = weight.to(torch.float32, copy=True)


def _regrouped(weight: QuantizedTensor) -> QuantizedTensor | None:
    """A matrix in groups that the kernels have; none: its own are smaller, or no multiple."""
    if weight.group in (*GROUPS, weight.shape[1]):
        return weight
    return next((found for group in GROUPS[::-1] if (found := weight.regrouped(group))), None)


def _ints(values: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.int32))
