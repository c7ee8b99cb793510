# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Activation checkpointing, and what the allocator does with freed memory."""

import ctypes
import platform
from functools import partial

from torch.utils.checkpoint import checkpoint

from openllm.nn.model import Transformer


def checkpoint_activations(model: Transformer) -> Transformer:
    """Keep only each block's input; recompute its activations in the backward pass.

    As in arXiv:1604.06174. Dropout draws the same mask both times.
    """
    for block in model.layers:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return model


def keep_freed_memory() -> None:
    """Let this process keep large freed blocks for later allocations.

    glibc returns blocks above 32 MiB to the system at once, so each new one must be cleared:
    85,000 page faults per step of `small`, about a tenth of its time (docs/LOG.md).
    """
    _limit_blocks(kept=2**31 - 1)


def return_freed_memory() -> None:
    """Let this process return every freed block above 1 MiB to the system at once.

    The opposite choice: no fragmentation (a quarter of the resident memory of `small` with
    activation checkpointing), for a tenth of the time.
    """
    _limit_blocks(kept=2**20)


def _limit_blocks(kept: int) -> None:
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_threshold = -1, -3
    libc = ctypes.CDLL(None)
    for option in (mmap_threshold, trim_threshold):
        libc.mallopt(option, kept)
