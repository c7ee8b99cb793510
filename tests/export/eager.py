# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What the exports are compared with: the model in torch, one text at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor

from openllm.nn.cache import KVCache
from openllm.nn.heads import logits
from openllm.nn.model import Transformer


@torch.inference_mode()
def eager_logits(model: Transformer, ids: Sequence[int]) -> Tensor:
    """(T, V)."""
    return logits(model(torch.tensor([list(ids)])).x, model.head)[0]


@torch.inference_mode()
def eager_greedy(model: Transformer, prompt: Sequence[int], new_tokens: int) -> list[int]:
    """The most likely continuation."""
    cache = KVCache(model.cfg, 1, len(prompt) + new_tokens)
    made, newest = [], list(prompt)
    for _ in range(new_tokens):
        hidden = model(torch.tensor([newest]), cache=cache).x[:, -1]
        newest = [int(logits(hidden, model.head).argmax())]
        made += newest
    return made
