# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Document boundaries of a batch, for attention."""

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class AttentionContext:
    """Where documents begin and end.

    `cu_seqlens` holds the boundaries 0 = c0 < c1 < ... = B * T in the flattened batch; the end
    of a row is always one. A token attends to earlier tokens between the same two boundaries.
    `borders` is the same as an int32 tensor on the CPU.
    """

    cu_seqlens: tuple[int, ...]
    borders: Tensor = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # not on demand: inside a compiled block the values would become constants
        borders = torch.tensor(self.cu_seqlens, dtype=torch.int32)
        object.__setattr__(self, "borders", borders)

    @property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return max(end - start for start, end in pairwise(self.cu_seqlens))

    @classmethod
    def rows(cls, batch: int, time: int) -> "AttentionContext":
        """Treat each row as one document."""
        return cls(tuple(range(0, batch * time + 1, time)))
