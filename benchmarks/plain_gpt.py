# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A plain textbook GPT: the baseline for speed and sample efficiency.

GPT-2's shape in straightforward PyTorch: learned positions, LayerNorm, one matrix for queries,
keys and values, PyTorch's attention, a GELU MLP, tied embeddings, and cross-entropy of all
logits at once. It knows nothing about packed documents and uses nothing from `openllm`.
"""

# B batch, T time, D model, N heads, H head dim

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

INIT_STD = 0.02
"""GPT-2's; projections into the residual stream get less, the more of them there are."""


class PlainBlock(nn.Module):
    """Attention and MLP, each after a LayerNorm and added to its input."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.mix = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The residual stream after this block."""
        qkv = self.qkv(self.attention_norm(x_BTD)).unflatten(-1, (3, self.num_heads, -1))
        q_BNTH, k_BNTH, v_BNTH = qkv.permute(2, 0, 3, 1, 4)
        share = self.dropout.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            q_BNTH, k_BNTH, v_BNTH, is_causal=True, dropout_p=share
        )
        x_BTD = x_BTD + self.dropout(self.mix(mixed.transpose(1, 2).flatten(2)))
        hidden = F.gelu(self.up(self.mlp_norm(x_BTD)), approximate="tanh")
        return x_BTD + self.dropout(self.down(hidden))


class PlainGPT(nn.Module):
    """The whole model."""

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        num_layers: int,
        num_heads: int,
        context: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, dim)
        self.positions = nn.Embedding(context, dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(PlainBlock(dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INIT_STD)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for residual in self._residual_maps():
            nn.init.normal_(residual.weight, std=INIT_STD / (2 * num_layers) ** 0.5)

    def _residual_maps(self) -> Iterator[nn.Linear]:
        for block in self.blocks:
            yield from (block.mix, block.down)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        """Mean loss in nats of the (B, T) targets, ignoring -100; without targets, the logits."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x_BTD = self.dropout(self.tokens(tokens) + self.positions(places))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        logits = F.linear(self.norm(x_BTD), self.tokens.weight)
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def adamw(model: nn.Module, lr: float, weight_decay: float, betas: tuple[float, float]) -> AdamW:
    """AdamW with weight decay on matrices, not on gains and biases."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=lr, betas=betas, fused=True)
