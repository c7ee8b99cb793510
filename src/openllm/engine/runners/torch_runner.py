# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Runs any `Transformer` for the engine, in plain torch, on any device."""

# R rows, W wanted rows, D model, V vocabulary

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from openllm.core.errors import CheckpointError
from openllm.engine.runner import Batch, Logits
from openllm.engine.runners.paged import BatchCache, PagedCache
from openllm.nn.heads import logits
from openllm.nn.model import Transformer
from openllm.transform.adapter_bank import AdapterBank

TILE = 16
"""Rows of a matrix product in exact mode, always so many, since their number decides its order."""


class TorchRunner:
    """The reference: slower than the compiled runner, and knows every model.

    In exact mode it runs tiles of a fixed number of rows and attends token by token.
    """

    def __init__(self, model: Transformer, *, exact: bool = False) -> None:
        self.model = model
        self.exact = exact
        weight = model.embed_tokens.weight
        shape = model.cfg.attention
        self.num_bytes = sum(x.numel() * x.element_size() for x in model.parameters())
        self.token_bytes = (
            2 * model.cfg.num_layers * shape.kv_heads * shape.head_dim * weight.element_size()
        )
        self._bank: AdapterBank | None = None

    def allocate(self, num_blocks: int, block_size: int) -> None:
        """See `Runner.allocate`."""
        weight = self.model.embed_tokens.weight
        self._cache = PagedCache(
            self.model.cfg, num_blocks, block_size, dtype=weight.dtype, device=weight.device
        )

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """See `Runner.forward`."""
        if not self.exact:
            return self._run(batch, len(batch.tokens))[list(batch.wanted)]
        states = [self._run(part, TILE)[: len(part.tokens)] for part in tiles(batch)]
        return torch.cat(states)[list(batch.wanted)]

    @torch.inference_mode()
    def logits(self, states_WD: Tensor) -> Logits:
        """See `Runner.logits`."""
        head = self.model.head
        if not self.exact:
            return Logits(logits(states_WD, head))
        parts = []
        for part in states_WD.split(TILE):
            full = torch.zeros(TILE, part.shape[1], dtype=part.dtype, device=part.device)
            full[: len(part)] = part
            parts.append(logits(full, head)[: len(part)])
        return Logits(torch.cat(parts))

    def save(self, blocks: Sequence[int]) -> Any:
        """See `Runner.save`."""
        return self._cache.save(list(blocks))

    def restore(self, saved: Any, blocks: Sequence[int]) -> None:
        """See `Runner.restore`."""
        self._cache.restore(saved, list(blocks))

    @torch.no_grad()
    def update(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See `Runner.update`."""
        own = dict(self.model.named_parameters())
        for name, value in weights:
            if name not in own or own[name].shape != value.shape:
                have = f"{tuple(own[name].shape)}" if name in own else "no such weight"
                raise CheckpointError(
                    f"the new weight '{name}' has shape {tuple(value.shape)}, but the model has "
                    f"{have}; give weights of the same architecture"
                )
            own[name].copy_(value)

    def set_adapters(self, bank: AdapterBank) -> None:
        """See `Runner.set_adapters`."""
        self._bank = bank

    def _run(self, batch: Batch, rows: int) -> Tensor:
        """(rows, D): states of a batch, filled up to so many rows."""
        device = self.model.embed_tokens.weight.device
        missing = rows - len(batch.tokens)
        tokens = torch.tensor([[*batch.tokens, *[0] * missing]], device=device)
        positions = torch.tensor([[*batch.positions, *[0] * missing]], device=device)
        cache = BatchCache(self._cache, batch, exact=self.exact)
        with self._adapted(batch, missing), evaluating(self.model):
            return self.model(tokens, positions=positions, cache=cache).x[0]

    def _adapted(self, batch: Batch, missing: int) -> contextlib.AbstractContextManager[None]:
        if self._bank is None or max(batch.adapters) < 0:
            return contextlib.nullcontext()
        pairs = zip(batch.adapters, batch.counts, strict=True)
        indices = [index for index, count in pairs for _ in range(count)]
        return self._bank.rows([*indices, *[-1] * missing], exact=self.exact)


@contextlib.contextmanager
def evaluating(model: Transformer) -> Iterator[None]:
    """Without dropout inside; who trains the model finds it in the mode that it was in."""
    if not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


def tiles(batch: Batch) -> Iterable[Batch]:
    """Split a batch into parts of at most `TILE` rows."""
    for begin in range(0, len(batch.tokens), TILE):
        end = min(begin + TILE, len(batch.tokens))
        counts, tables, adapters, row = [], [], [], 0
        for count, table, adapter in zip(batch.counts, batch.tables, batch.adapters, strict=True):
            inside = min(end, row + count) - max(begin, row)
            if inside > 0:
                counts.append(inside)
                tables.append(table)
                adapters.append(adapter)
            row += count
        yield replace(
            batch,
            tokens=batch.tokens[begin:end],
            positions=batch.positions[begin:end],
            counts=counts,
            tables=tables,
            adapters=adapters,
            wanted=range(end - begin),
        )
