# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Fuse operations with torch.compile."""

import torch

from openllm.nn.kernels import attention
from openllm.nn.model import Transformer


def compile_blocks(model: Transformer) -> Transformer:
    """Compile each block; they are alike, so all share the first one's code.

    The head is left out: it is already fused, and its chunks would be unrolled.
    """
    # its loop over documents would be recompiled for each batch
    attention.attention_reference = torch.compiler.disable(attention.attention_reference)
    for block in model.layers:
        block.compile()
    return model
