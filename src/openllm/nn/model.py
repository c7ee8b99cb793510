# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The model class."""

# B batch, T time, D model, V vocabulary

from typing import NamedTuple

import torch
from torch import Tensor, nn

from openllm.nn.block import Block
from openllm.nn.cache import Cache
from openllm.nn.config import LearnedPositionConfig, ModelConfig, ResearchConfig, RopeConfig
from openllm.nn.context import AttentionContext
from openllm.nn.heads import Head
from openllm.nn.init import init_weights
from openllm.nn.research import Research
from openllm.nn.rope import rotary_table


class Hidden(NamedTuple):
    """Output of a forward pass: final hidden states (B, T, D) and named auxiliary loss terms."""

    x: Tensor
    aux: dict[str, Tensor]


class Transformer(nn.Module):
    """A decoder-only transformer, shaped like Qwen3, GPT-2, Gemma and others, as its config says.

    It returns hidden states; `nn/heads.py` turns them into logits, log-probabilities or a loss,
    so that logits are computed only where needed.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.embed_tokens = nn.Embedding(cfg.vocab_size, cfg.dim)
        learned = isinstance(cfg.position, LearnedPositionConfig)
        self.embed_positions = nn.Embedding(cfg.max_positions, cfg.dim) if learned else None
        self.dropout = nn.Dropout(cfg.dropout)
        self.layers = nn.ModuleList(Block(cfg, layer) for layer in range(cfg.num_layers))
        self.research = None if cfg.research == ResearchConfig() else Research(cfg)
        self.norm = cfg.norm.build(cfg.dim)
        self.lm_head = (
            None if cfg.tie_embeddings else nn.Linear(cfg.dim, cfg.vocab_size, bias=False)
        )

    @property
    def head(self) -> Head:
        """What maps hidden states to logits."""
        weight = self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return Head(weight, self.cfg.logit_softcap)

    def forward(
        self,
        tokens: Tensor | None = None,
        embeds: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        attn: AttentionContext | None = None,
        cache: Cache | None = None,
    ) -> Hidden:
        """Compute the hidden states of a batch.

        Args:
            tokens: (B, T) ids, or
            embeds: (B, T, D) in their place.
            positions: (B, T) position of each token in its document; default: counted from 0, or
                from each row's length in the cache.
            attn: document boundaries; default: each row is one document.
            cache: keys and values of earlier tokens; new ones are appended.
        """
        if (tokens is None) == (embeds is None):
            raise ValueError("pass either tokens or embeds")
        x_BTD = self.embed(tokens) if embeds is None else embeds
        batch, time = x_BTD.shape[:2]
        if positions is None:
            starts = torch.tensor(cache.lengths if cache else [0] * batch, device=x_BTD.device)
            positions = starts[:, None] + torch.arange(time, device=x_BTD.device)
        if self.embed_positions is not None:
            x_BTD = x_BTD + self.embed_positions(positions)
        ropes = self.rotations(positions)
        context = attn or AttentionContext.rows(batch, time)
        x_BTD = self.dropout(x_BTD)
        first_BTD, given = x_BTD, []
        for number, layer in enumerate(self.layers):
            value = None
            if self.research is not None:
                x_BTD = self.research.enter(number, x_BTD, first_BTD, given)
                value = self.research.extra_value(number, tokens)
            x_BTD = layer(x_BTD, ropes[number], context, cache, value)
            if self.research is not None:
                given.append(x_BTD)
        if cache is not None:
            cache.advance(time)
        return Hidden(self.norm(x_BTD), {})

    def embed(self, tokens_BT: Tensor) -> Tensor:
        """(B, T) ids -> (B, T, D)."""
        x_BTD = self.embed_tokens(tokens_BT)
        if self.cfg.embed_scale is None:
            return x_BTD
        # rounded to the weights' dtype, as Gemma does
        return x_BTD * torch.tensor(self.cfg.embed_scale, dtype=x_BTD.dtype, device=x_BTD.device)

    def rotations(self, positions_BT: Tensor) -> list[tuple[Tensor, Tensor] | None]:
        """Cosines and sines for each layer; none for layers without rotary positions."""
        rope, shape = self.cfg.position, self.cfg.attention
        if not isinstance(rope, RopeConfig):
            return [None] * self.cfg.num_layers
        table = rotary_table(positions_BT, shape.head_dim, rope)
        tables = [table] * self.cfg.num_layers
        if rope.window_theta is not None:
            other = rotary_table(positions_BT, shape.head_dim, rope, windowed=True)
            tables = [
                table if shape.window_of(layer) is None else other
                for layer in range(self.cfg.num_layers)
            ]
        for layer in rope.unrotated_layers:
            tables[layer] = None
        return tables


def build_model(cfg: ModelConfig, *, seed: int = 0) -> Transformer:
    """Build a model with random weights that depend on the seed alone."""
    model = Transformer(cfg)
    init_weights(model, cfg, seed)
    return model
