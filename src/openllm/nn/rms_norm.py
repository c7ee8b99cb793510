# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The module behind `RMSNormConfig`, separate because configs load without torch."""

import torch
from torch import Tensor, nn

from openllm.nn.kernels.rows import rms_norm


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis (arXiv:1910.07467)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return rms_norm(x, self.weight, self.eps)
