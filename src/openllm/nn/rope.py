# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Rotary position embedding (arXiv:2104.09864), in the half-split layout of Llama and Qwen."""

# B batch, T time, N heads, H head dim

import torch
from torch import Tensor


def rotary_table(positions_BT: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (B, T, 1, H/2) in float32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions_BT.device)
    frequencies = theta ** (-exponents / head_dim)
    angles = positions_BT.float()[:, :, None, None] * frequencies
    return angles.cos(), angles.sin()


def rotate(x_BTNH: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (i, i + H/2) of a head by its position's angle."""
    cos, sin = table
    left, right = x_BTNH.float().chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)
