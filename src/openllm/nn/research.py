# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Features that no public architecture has; all gains start at zero, which disables them.

They come from the modded-nanogpt speedrun (https://github.com/KellerJordan/modded-nanogpt), the
skips from arXiv:1505.04597, the value embeddings from arXiv:2410.17897.
"""

# B batch, T time, D model, K kv heads, H head dim, L layers, V vocabulary

import torch
from torch import Tensor, nn

from openllm.nn.config import ModelConfig


class Research(nn.Module):
    """Connections between layers besides the residual stream."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        wanted, layers = cfg.research, cfg.num_layers
        self.layers_in_all = layers
        self.skip_gains = nn.Parameter(torch.zeros(layers // 2)) if wanted.unet_skips else None
        self.mix_gains = nn.Parameter(torch.zeros(layers)) if wanted.embedding_mix else None
        self.value_layers = sorted({0, layers - 1}) if wanted.value_embeddings else []
        self.head_dim = cfg.attention.head_dim
        width = cfg.attention.kv_heads * self.head_dim
        self.values = nn.ModuleList(nn.Embedding(cfg.vocab_size, width) for _ in self.value_layers)
        self.value_gains = (
            nn.Parameter(torch.zeros(len(self.value_layers))) if self.value_layers else None
        )

    def enter(self, layer: int, x_BTD: Tensor, first_BTD: Tensor, given: list[Tensor]) -> Tensor:
        """Input of a layer: the stream plus the embedding and an earlier layer's output."""
        if self.mix_gains is not None:
            x_BTD = x_BTD + self.mix_gains[layer] * first_BTD
        mirrored = self.layers_in_all - 1 - layer
        if self.skip_gains is not None and mirrored < layer:
            x_BTD = x_BTD + self.skip_gains[mirrored] * given[mirrored]
        return x_BTD

    def extra_value(self, layer: int, tokens_BT: Tensor | None) -> Tensor | None:
        """(B, T, K, H) to add to the layer's values; None for most layers."""
        if layer not in self.value_layers or self.value_gains is None:
            return None
        if tokens_BT is None:
            raise ValueError("a model with value embeddings needs tokens, not embeds")
        place = self.value_layers.index(layer)
        values = self.values[place](tokens_BT).unflatten(-1, (-1, self.head_dim))
        return self.value_gains[place] * values
