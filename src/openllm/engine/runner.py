# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What runs the model for the engine, and what it is given. Importable without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from openllm.transform.adapter_bank import AdapterBank


@dataclass(frozen=True)
class Batch:
    """Tokens of several sequences, those of each one after another.

    Attributes:
        tokens: ids of all rows.
        positions: place of each row's token in its sequence.
        counts: number of rows of each sequence.
        tables: blocks of each sequence, up to that of its last row at least.
        adapters: index of each sequence's adapter, or -1.
        wanted: rows whose final state is needed, in rising order.
    """

    tokens: Sequence[int]
    positions: Sequence[int]
    counts: Sequence[int]
    tables: Sequence[Sequence[int]]
    adapters: Sequence[int]
    wanted: Sequence[int]


class Logits(NamedTuple):
    """Scores of all tokens (W, V) in float32, which may be overwritten.

    `best_W`: the greatest of each row and its token, of type `BEST`, where the runner knows them.
    """

    all_WV: Tensor
    best_W: NDArray[np.void] | None = None


class Runner(Protocol):
    """A model and its key-value cache.

    Attributes:
        num_bytes: memory of the weights.
        token_bytes: memory that one token takes in the cache.
        exact: whether a row's result is the same bits whatever else is in the batch.
    """

    num_bytes: int
    token_bytes: int
    exact: bool

    def allocate(self, num_blocks: int, block_size: int) -> None:
        """Make the cache."""
        ...

    def forward(self, batch: Batch) -> Tensor:
        """(W, D): final states of the wanted rows; keys and values go to the cache."""
        ...

    def logits(self, states_WD: Tensor) -> Logits:
        """Logits after each state, valid until the next call."""
        ...

    def save(self, blocks: Sequence[int]) -> Any:
        """A copy of blocks of the cache."""
        ...

    def restore(self, saved: Any, blocks: Sequence[int]) -> None:
        """Put a copy into blocks."""
        ...

    def update(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace weights, under our names.

        Raises:
            CheckpointError: an unknown name, or another shape; those before it may be replaced.
        """
        ...

    def set_adapters(self, bank: AdapterBank) -> None:
        """Take note of the adapters that an `AdapterBank` holds now.

        Raises:
            ConfigError: it holds one of a kind that this runner does not compute; then the runner
                goes on with those that it had.
        """
        ...
