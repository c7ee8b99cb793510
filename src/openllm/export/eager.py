# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Our own model as a runtime: the original of every certificate, and what runs our folders."""

# B batch, T time, D model, V vocabulary

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from openllm import __version__
from openllm.checkpoint.model_dir import load_model
from openllm.core.log import progress
from openllm.nn.cache import KVCache
from openllm.nn.heads import logits
from openllm.nn.model import Transformer


def outputs_of(
    blocks: Iterable[nn.Module], model: nn.Module, ids: Sequence[int]
) -> list[NDArray[np.float32]]:
    """What each block puts out, (T, D), when the model reads one text."""
    kept: list[NDArray[np.float32]] = []

    def keep(_: nn.Module, __: Any, out: Any) -> None:
        stream = out[0] if isinstance(out, tuple) else out
        kept.append(stream.reshape(-1, stream.shape[-1]).float().numpy())

    hooks = [block.register_forward_hook(keep) for block in blocks]
    try:
        model(torch.tensor([list(ids)]))
    finally:
        for hook in hooks:
            hook.remove()
    return kept


class EagerModel:
    """A `Transformer` in float32."""

    name = "openllm"
    version = __version__

    def __init__(self, model: Transformer) -> None:
        self.model = model.eval()

    @classmethod
    def load(cls, folder: Path) -> "EagerModel":
        """Load a model folder."""
        return cls(load_model(folder))

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """(T, V): logits after each token of one text."""
        return logits(self.model(torch.tensor([list(ids)])).x[0], self.model.head).numpy()

    @torch.inference_mode()
    def layers(self, ids: Sequence[int]) -> list[NDArray[np.float32]]:
        """The residual stream (T, D) after each layer."""
        return outputs_of(self.model.layers, self.model, ids)

    def greedy(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
        """The most likely continuation of each prompt, past any end token."""
        return self.greedy_with_margins(prompts, new_tokens)[0]

    @torch.inference_mode()
    def greedy_with_margins(
        self, prompts: Sequence[Sequence[int]], new_tokens: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Also the gap between the two best logits at each token."""
        cfg = self.model.cfg
        cache = KVCache(cfg, len(prompts), max(map(len, prompts)) + new_tokens)
        states = []
        for row, prompt in enumerate(prompts):
            single = KVCache(cfg, 1, len(prompt))
            states.append(self.model(torch.tensor([list(prompt)]), cache=single).x[0, -1])
            cache.copy_row(single, 0, row)
        states_BD = torch.stack(states)
        tokens: list[list[int]] = [[] for _ in prompts]
        margins: list[list[float]] = [[] for _ in prompts]
        with progress("greedy text", new_tokens, "tokens") as meter:
            for step in range(new_tokens):
                best = logits(states_BD, self.model.head).topk(2)
                for row, (values, index) in enumerate(zip(*best, strict=True)):
                    tokens[row].append(int(index[0]))
                    margins[row].append(float(values[0] - values[1]))
                meter.advance()
                if step + 1 < new_tokens:
                    newest = best.indices[:, :1]
                    states_BD = self.model(newest, cache=cache).x[:, -1]
        return tokens, margins
