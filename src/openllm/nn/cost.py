# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Exact parameter counts and FLOPs of a model, from its config."""

from collections.abc import Sequence
from dataclasses import dataclass

from openllm.nn.config import GeluConfig, LearnedPositionConfig, ModelConfig, ReluSquaredConfig


@dataclass(frozen=True)
class Parameters:
    """Parameter counts by component."""

    embeddings: int
    attention: int
    mlp: int
    norms: int
    research: int
    head: int

    @property
    def total(self) -> int:
        """All parameters; a tied head counts once, with the embeddings."""
        return sum(vars(self).values())


def parameters(cfg: ModelConfig) -> Parameters:
    """Count the parameters of a model."""
    shape = cfg.attention
    query, key = shape.num_heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = cfg.dim * (query + 2 * key) + query * cfg.dim
    if shape.bias:
        attention += query + 2 * key
    if shape.has_output_bias:
        attention += cfg.dim
    hidden = cfg.mlp.hidden_dim
    if isinstance(cfg.mlp, GeluConfig):
        mlp = 2 * cfg.dim * hidden + hidden + cfg.dim
    elif isinstance(cfg.mlp, ReluSquaredConfig):
        mlp = 2 * cfg.dim * hidden
    else:
        mlp = 3 * cfg.dim * hidden
    norms = (4 if cfg.norm_placement == "both" else 2) * cfg.norm.num_parameters(cfg.dim)
    if shape.qk_norm:
        widths = (query, key) if shape.qk_norm_over == "all" else (shape.head_dim,) * 2
        norms += sum(map(cfg.norm.num_parameters, widths))
    positions = cfg.max_positions if isinstance(cfg.position, LearnedPositionConfig) else 0
    return Parameters(
        embeddings=(cfg.vocab_size + positions) * cfg.dim,
        attention=cfg.num_layers * attention,
        mlp=cfg.num_layers * mlp,
        norms=cfg.num_layers * norms + cfg.norm.num_parameters(cfg.dim),
        research=_research(cfg, key),
        head=0 if cfg.tie_embeddings else cfg.vocab_size * cfg.dim,
    )


def _research(cfg: ModelConfig, key_width: int) -> int:
    tables = len({0, cfg.num_layers - 1}) if cfg.research.value_embeddings else 0
    skips = cfg.num_layers // 2 if cfg.research.unet_skips else 0
    mixes = cfg.num_layers if cfg.research.embedding_mix else 0
    return tables * (cfg.vocab_size * key_width + 1) + skips + mixes


def matmul_parameters(cfg: ModelConfig) -> int:
    """Count the weights each token is multiplied with, including the output head."""
    shape = cfg.attention
    heads = shape.num_heads + shape.kv_heads
    attention = 2 * cfg.dim * heads * shape.head_dim
    matrices = 2 if isinstance(cfg.mlp, GeluConfig | ReluSquaredConfig) else 3
    return (
        cfg.num_layers * (attention + matrices * cfg.dim * cfg.mlp.hidden_dim)
        + cfg.vocab_size * cfg.dim
    )


def forward_flops(cfg: ModelConfig, lengths: Sequence[int]) -> int:
    """FLOPs of the matrix products of a forward pass over documents of these lengths.

    A multiply-add is two FLOPs; attention is counted in full, as if not causal.
    """
    tokens = sum(lengths)
    width = cfg.attention.num_heads * cfg.attention.head_dim
    scores = cfg.num_layers * 4 * width * sum(length * length for length in lengths)
    return 2 * tokens * matmul_parameters(cfg) + scores


def train_flops(cfg: ModelConfig, lengths: Sequence[int]) -> int:
    """Forward and backward: backward adds 2x for weight products, 2.5x for attention.

    Attention with a soft cap keeps its scores, so backward need not compute them again: 2x.
    """
    tokens = sum(lengths)
    weights = 2 * tokens * matmul_parameters(cfg)
    scores = forward_flops(cfg, lengths) - weights
    again = 0 if cfg.attention.softcap is not None else scores // 2
    return 3 * (weights + scores) + again


def kv_cache_bytes(cfg: ModelConfig, tokens: int, bytes_per_value: int = 4) -> int:
    """Bytes of the KV cache for `tokens` tokens."""
    shape = cfg.attention
    return 2 * cfg.num_layers * tokens * shape.kv_heads * shape.head_dim * bytes_per_value
