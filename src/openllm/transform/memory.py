# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Trade arithmetic for memory."""

from functools import partial

from torch.utils.checkpoint import checkpoint

from openllm.nn.model import Transformer


def checkpoint_activations(model: Transformer) -> Transformer:
    """Keep only each block's input; its inside is computed again in the backward pass.

    As in arXiv:1604.06174. Dropout draws the same numbers both times.
    """
    for block in model.layers:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return model
