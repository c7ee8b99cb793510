# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Let torch write one kernel for many operations."""

from openllm.nn.model import Transformer


def compile_blocks(model: Transformer) -> Transformer:
    """Compile each block; they are alike, so the first one's code serves all.

    The head stays as it is: it is fused already, and its chunks would be unrolled.
    """
    for block in model.layers:
        block.compile()
    return model
