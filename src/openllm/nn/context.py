# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What attention must know about a batch beside its numbers."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class AttentionContext:
    """Where documents begin and end.

    `cu_seqlens` are the borders 0 = c0 < c1 < ... = B * T in the flattened batch; the border of
    a row is always a border. A token attends to earlier tokens between the same two borders.
    `borders` is the same as an int32 tensor on the CPU.
    """

    cu_seqlens: tuple[int, ...]
    borders: Tensor = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # here and not on demand: inside of a compiled block the numbers would become constants
        borders = torch.tensor(self.cu_seqlens, dtype=torch.int32)
        object.__setattr__(self, "borders", borders)

    @classmethod
    def rows(cls, batch: int, time: int) -> "AttentionContext":
        """Each row is one document."""
        return cls(tuple(range(0, batch * time + 1, time)))
