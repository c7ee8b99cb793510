# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Lets the engine run a foreign runtime, such as ONNX Runtime or llama.cpp.

Such a runtime keeps a few texts, each in a slot of its own, and makes logits of them. The engine's
blocks are these slots, each as long as the context.
"""

# W wanted rows, V vocabulary

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openllm.core.errors import ConfigError
from openllm.engine.runner import Batch, Logits
from openllm.transform.adapter_bank import AdapterBank

WORTH_COPYING = 16
"""Tokens that must be saved for a text to be copied from another slot."""


@dataclass(frozen=True)
class Piece:
    """Tokens that follow the first `start` of a slot, whose other tokens are forgotten.

    Attributes:
        slot: number of the slot.
        start: tokens of the slot that stay.
        tokens: what follows them, at least one.
        wanted: places among `tokens` after which logits are wanted, in rising order.
    """

    slot: int
    start: int
    tokens: Sequence[int]
    wanted: Sequence[int]


class SlotModel(Protocol):
    """A model in a foreign runtime.

    Attributes:
        vocab_size: number of logits.
        max_positions: most tokens of a text.
        num_bytes: memory of the weights.
        token_bytes: memory that one token of a text takes.
    """

    vocab_size: int
    max_positions: int
    num_bytes: int
    token_bytes: int

    def allocate(self, slots: int) -> None:
        """Make empty slots."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Replace a slot by the first tokens of another."""
        ...

    def extend(self, pieces: Sequence[Piece]) -> NDArray[np.float32]:
        """Compute pieces of different slots; (W, V): the logits wanted, in order."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


class SlotRunner:
    """A `Runner` over a `SlotModel`; what it calls states are logits.

    Texts that slots still hold are used again where a new one begins alike.
    """

    exact = False

    def __init__(self, model: SlotModel) -> None:
        self.model = model
        self.num_bytes = model.num_bytes
        self.token_bytes = model.token_bytes
        self.reused_tokens = 0
        self._texts: list[list[int]] = []

    def allocate(self, num_blocks: int, block_size: int) -> None:
        """See `Runner.allocate`; a block is a slot."""
        assert block_size >= self.model.max_positions
        self.model.allocate(num_blocks)
        self._texts = [[] for _ in range(num_blocks)]

    def forward(self, batch: Batch) -> Tensor:
        """See `Runner.forward`."""
        waiting, found = _pieces(batch), dict[int, NDArray[np.float32]]()
        while waiting:
            now, later = self._without_repetition(waiting)
            pieces = [piece for piece in map(self._shorten, now) if piece.tokens]
            rows_WV = self._extend(pieces)
            ends = np.cumsum([len(piece.wanted) for piece in pieces]).tolist()
            for piece, end in zip(pieces, ends, strict=True):
                found[piece.slot] = rows_WV[end - len(piece.wanted) : end]
            waiting = later
        slots = [table[0] for table in batch.tables if table[0] in found]
        if not slots:
            return torch.empty(0, self.model.vocab_size)
        return torch.from_numpy(np.concatenate([found[slot] for slot in slots]))

    def logits(self, states_WD: Tensor) -> Logits:
        """See `Runner.logits`; a copy, because sampling overwrites it."""
        return Logits(states_WD.clone())

    def save(self, blocks: Sequence[int]) -> Any:
        """See `Runner.save`: the tokens of slots."""
        return [list(self._texts[slot]) for slot in blocks]

    def restore(self, saved: Any, blocks: Sequence[int]) -> None:
        """See `Runner.restore`: computes them again."""
        self._extend([Piece(slot, 0, text, ()) for slot, text in zip(blocks, saved, strict=True)])

    def update(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See `Runner.update`.

        Raises:
            ConfigError: always, the weights are part of the exported file.
        """
        raise ConfigError("an exported model's weights cannot be replaced; load the model folder")

    def set_adapters(self, bank: AdapterBank) -> None:
        """See `Runner.set_adapters`: there are none."""

    def _without_repetition(self, pieces: list[Piece]) -> tuple[list[Piece], list[Piece]]:
        """What to compute now, and what can copy much of that afterwards."""
        now: list[Piece] = []
        later: list[Piece] = []
        for piece in pieces:
            if not _free(piece):
                now.append(piece)
                continue
            text = self._text(piece)
            known = max(len(self._reusable(piece, slot)) for slot in range(len(self._texts)))
            shared = max((_common(text, self._text(other)) for other in now), default=0)
            gain = min(shared - piece.start, _free(piece)) - known
            (later if gain >= WORTH_COPYING else now).append(piece)
        return now, later

    def _text(self, piece: Piece) -> list[int]:
        """A slot's text once a piece is computed."""
        return [*self._texts[piece.slot][: piece.start], *piece.tokens]

    def _reusable(self, piece: Piece, slot: int) -> Sequence[int]:
        """The beginning of a piece that a slot holds in the right place and nobody looks at."""
        start, free = piece.start, _free(piece)
        if not free or self._texts[slot][:start] != self._texts[piece.slot][:start]:
            return ()
        held = self._texts[slot][start : start + free]
        return piece.tokens[: _common(held, piece.tokens)]

    def _shorten(self, piece: Piece) -> Piece:
        """Leave out what is in a slot already."""
        best, target = piece.slot, piece.slot
        saved = len(self._reusable(piece, target))
        for slot in range(len(self._texts)):
            length = len(self._reusable(piece, slot))
            if length >= saved + WORTH_COPYING:
                best, saved = slot, length
        if best != target:
            self.model.copy(best, target, piece.start + saved)
            self._texts[target] = self._texts[best][: piece.start + saved]
        self.reused_tokens += saved
        wanted = [place - saved for place in piece.wanted]
        return Piece(target, piece.start + saved, piece.tokens[saved:], wanted)

    def _extend(self, pieces: Sequence[Piece]) -> NDArray[np.float32]:
        if not pieces:
            return np.empty((0, self.model.vocab_size), np.float32)
        texts = {piece.slot: self._text(piece) for piece in pieces}
        for slot in texts:
            self._texts[slot] = []  # unknown, if it fails
        rows_WV = self.model.extend(pieces)
        for slot, text in texts.items():
            self._texts[slot] = text
        return rows_WV


def _pieces(batch: Batch) -> list[Piece]:
    pieces, row, wanted = [], 0, list(batch.wanted)
    for count, table in zip(batch.counts, batch.tables, strict=True):
        end = row + count
        inside = [place - row for place in wanted if row <= place < end]
        pieces.append(Piece(table[0], batch.positions[row], batch.tokens[row:end], inside))
        row = end
    return pieces


def _free(piece: Piece) -> int:
    """Tokens at the beginning of a piece after which no logits are wanted."""
    return piece.wanted[0] if piece.wanted else len(piece.tokens)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
