# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Rotary position embedding (arXiv:2104.09864), in the half-split layout of Llama and Qwen."""

# B batch, T time, F half of the rotated dimensions of a head

import torch
from torch import Tensor

from openllm.nn.config import RopeConfig


def rotary_table(
    positions_BT: Tensor, head_dim: int, cfg: RopeConfig, *, windowed: bool = False
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of all tokens, flattened, each (B T, F) in float32.

    Args:
        positions_BT: place of each token in its document.
        head_dim: of the attention heads.
        cfg: base, scaling, rotated fraction of a head.
        windowed: for layers with a window, which may have a base of their own.
    """
    scaling, theta = cfg.scaling, cfg.theta
    if windowed and cfg.window_theta is not None:
        scaling, theta = None, cfg.window_theta
    dim = cfg.rotated_dim(head_dim)
    exponents_F = torch.arange(0, dim, 2, dtype=torch.float32, device=positions_BT.device)
    frequencies_F = theta ** (-exponents_F / dim)
    if scaling is not None:
        frequencies_F = scaling.stretch(frequencies_F, theta, positions_BT)
    angles = positions_BT.float().flatten()[:, None] * frequencies_F
    if scaling is None or scaling.gain() == 1:
        return angles.cos(), angles.sin()
    return angles.cos() * scaling.gain(), angles.sin() * scaling.gain()
