# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Packed rows, each a pure function of (seed, number), so there is no state to save."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from openllm.core.errors import DataError
from openllm.data.packing import EpochPlan, Piece
from openllm.data.shards import Shards

IGNORE = -100
"""Target of a token that has no next token in its document."""


@dataclass(frozen=True)
class Batch:
    """B packed rows of T tokens.

    Attributes:
        tokens: (B, T) int64.
        targets: (B, T) int64, the next token of the same document or `IGNORE`.
        positions: (B, T) int64, counted from 0 in each piece of a document.
        cu_seqlens: boundaries of the pieces in the flattened batch.
    """

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    positions: NDArray[np.int64]
    cu_seqlens: tuple[int, ...]

    @property
    def num_targets(self) -> int:
        """Number of predicted tokens."""
        return int((self.targets != IGNORE).sum())


class TokenLoader:
    """Rows of a split, its documents shuffled anew in each epoch (or once for all epochs)."""

    def __init__(
        self,
        shards: Shards,
        *,
        seq_len: int,
        micro_rows: int,
        seed: int,
        reshuffle: bool = True,
    ) -> None:
        self.shards = shards
        self.seq_len = seq_len
        self.micro_rows = micro_rows
        self._lengths = np.diff(shards.offsets.astype(np.int64))
        self.rows_per_epoch = int(self._lengths.sum()) // seq_len
        if self.rows_per_epoch < 1:
            raise DataError(
                f"the split '{shards.split}' of {shards.folder} has {int(self._lengths.sum())} "
                f"tokens, fewer than one row of {seq_len}; add text or lower batch.seq_len"
            )
        self._plan = lru_cache(maxsize=2)(
            lambda epoch: EpochPlan(self._lengths, seed, epoch if reshuffle else 0)
        )

    def batches(self, first: int, stop: int) -> list[Batch]:
        """The micro-batches with the rows `first` to `stop` - 1, numbered across epochs."""
        rows = [(self.shards, self.pieces(row)) for row in range(first, stop)]
        return lay_out(rows, self.seq_len, self.micro_rows)

    def pieces(self, row: int) -> list[Piece]:
        """The pieces of documents in a row; rows are numbered across epochs."""
        epoch, index = divmod(row, self.rows_per_epoch)
        return self._plan(epoch).row(index, self.seq_len)

    def seen(self, rows: int) -> Iterator[NDArray[np.integer]]:
        """The tokens of the first `rows` rows, those of later epochs left out."""
        for row in range(min(rows, self.rows_per_epoch)):
            for piece in self.pieces(row):
                yield self.shards.document(piece.document)[piece.start : piece.end + 1]


Row = tuple[Shards, Sequence[Piece]]
"""The pieces of documents that fill a row, and the shards they are from."""


def lay_out(rows: Sequence[Row], seq_len: int, micro_rows: int) -> list[Batch]:
    """Batches of `micro_rows` rows each, in order; the last may have fewer."""
    return [
        _batch(rows[start : start + micro_rows], seq_len)
        for start in range(0, len(rows), micro_rows)
    ]


def _batch(rows: Sequence[Row], seq_len: int) -> Batch:
    shape = (len(rows), seq_len)
    tokens = np.empty(shape, np.int64)
    targets = np.full(shape, IGNORE, np.int64)
    positions = np.empty(shape, np.int64)
    borders = [0]
    for line, (shards, pieces) in enumerate(rows):
        column = 0
        for piece in pieces:
            document = shards.document(piece.document)
            length = piece.end - piece.start
            here = slice(column, column + length)
            tokens[line, here] = document[piece.start : piece.end]
            positions[line, here] = np.arange(length)
            following = document[piece.start + 1 : piece.end + 1]
            targets[line, column : column + len(following)] = following
            column += length
            borders.append(line * seq_len + column)
    return Batch(tokens, targets, positions, tuple(borders))


def sample_numbers(shards: Shards, tokens: int, seed: int, least: int = 1) -> NDArray[np.int64]:
    """Numbers of documents drawn by `seed`: about `tokens` tokens, and at least `least` or all.

    Returns:
        The numbers, in document order.

    Raises:
        DataError: the split is empty.
    """
    order = np.random.Generator(np.random.Philox(seed)).permutation(shards.num_documents)
    sizes = np.cumsum(np.diff(shards.offsets.astype(np.int64))[order])
    chosen = np.sort(order[: max(least, int(np.searchsorted(sizes, tokens)) + 1)])
    if not len(chosen):
        raise DataError(
            f"{shards.folder} has no '{shards.split}' documents; prepare the data again with more "
            "text held out"
        )
    return chosen


def sample_documents(
    shards: Shards, tokens: int, seed: int
) -> tuple[list[NDArray[np.integer]], int]:
    """Whole documents drawn by `seed`, about `tokens` tokens, and the UTF-8 bytes of their text."""
    chosen = sample_numbers(shards, tokens, seed)
    return [shards.document(int(i)) for i in chosen], int(shards.doc_bytes[chosen].sum())


def bits_per_byte_per_nat(shards: Shards) -> float:
    """Factor from nats per token to bits per byte, for a split's text as a whole."""
    text_tokens = len(shards.tokens) - 2 * shards.num_documents
    return text_tokens / max(1, int(shards.doc_bytes.sum())) / math.log(2)
