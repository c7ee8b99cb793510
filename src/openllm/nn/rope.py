# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Rotary position embedding (arXiv:2104.09864), in the half-split layout of Llama and Qwen."""

# B batch, T time, H head dim

import torch
from torch import Tensor


def rotary_table(positions_BT: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of all tokens, flattened, each (B T, H/2) in float32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions_BT.device)
    frequencies = theta ** (-exponents / head_dim)
    angles = positions_BT.float().flatten()[:, None] * frequencies
    return angles.cos(), angles.sin()
