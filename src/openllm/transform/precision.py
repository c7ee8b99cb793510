# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Precision of a run: float32, or matrix products in bfloat16 with float32 master weights."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]


def has_fast_bf16(device: str) -> bool:
    """Whether bfloat16 matrix products run in hardware."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "mps":
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def arithmetic(precision: Precision, device: str) -> AbstractContextManager[object]:
    """Context manager for forward passes in this precision."""
    if precision == "bf16":
        return torch.autocast(device, torch.bfloat16)
    return nullcontext()
