# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The module behind `RMSNormConfig`, separate because configs load without torch."""

import torch
from torch import Tensor, nn

from openllm.nn.kernels.rows import rms_norm


class RMSNorm(nn.Module):
    """x / rms(x) * gain over the last axis (arXiv:1910.07467); gain = weight, or 1 + weight."""

    def __init__(self, dim: int, eps: float, *, unit_offset: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.unit_offset = unit_offset
        self.weight = nn.Parameter(torch.zeros(dim) if unit_offset else torch.ones(dim))

    @property
    def gain(self) -> Tensor:
        """(D,)."""
        return 1.0 + self.weight.float() if self.unit_offset else self.weight

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return rms_norm(x, self.gain, self.eps)
