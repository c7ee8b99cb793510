# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Which documents fill which row: a pure function of (lengths, seed, epoch).

An epoch shuffles the documents, lays them end to end and cuts the stream into rows of equal
length. A document cut by the end of a row continues in the next as if it began there; there is no
padding, and each token is predicted at most once per epoch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Piece:
    """Tokens [start, end) of one document; if `end` < length, it continues elsewhere."""

    document: int
    start: int
    end: int


class EpochPlan:
    """The order of one epoch; costs 16 bytes per document."""

    def __init__(self, lengths: NDArray[np.integer], seed: int, epoch: int) -> None:
        order = np.random.Generator(np.random.Philox(key=[seed, epoch]))
        self._documents = order.permutation(len(lengths))
        self._ends = np.cumsum(np.asarray(lengths, dtype=np.int64)[self._documents])

    def row(self, index: int, seq_len: int) -> list[Piece]:
        """The pieces of documents that fill row `index`, in order."""
        position, stop = index * seq_len, (index + 1) * seq_len
        place = int(np.searchsorted(self._ends, position, side="right"))
        pieces = []
        while position < stop:
            end = int(self._ends[place])
            begin = int(self._ends[place - 1]) if place else 0
            upto = min(end, stop)
            pieces.append(Piece(int(self._documents[place]), position - begin, upto - begin))
            position, place = upto, place + 1
        return pieces
