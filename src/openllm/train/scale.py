# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Scaling laws: settings that follow from `scale`, the tokens and the vocabulary size.

The laws are anchored at 3.4M parameters and a million tokens and hold at 1M and 9M (docs/LOG.md);
elsewhere they extrapolate. Importable without torch.
"""

import math
from collections.abc import Mapping
from typing import Any

from openllm.core.config import merge
from openllm.core.errors import ConfigError
from openllm.train.config import PretrainConfig
from openllm.train.optim import MuonConfig
from openllm.train.schedule import parse_duration

HEAD_DIM = 64
HIDDEN_OVER_DIM = 3
LAYERS_OVER_DIM = 1 / 64
LAYER_PARAMETERS = 4 + 3 * HIDDEN_OVER_DIM
"""Parameters of a layer over its width squared: four attention matrices, three of the MLP."""


def model_shape(scale: int) -> tuple[int, int]:
    """Width and depth whose blocks have about `scale` parameters: one layer per 64 of width."""
    ideal = (scale / LAYER_PARAMETERS / LAYERS_OVER_DIM) ** (1 / 3)
    unit = HEAD_DIM if ideal < 640 else 2 * HEAD_DIM
    dim = round(ideal / unit) * unit
    return dim, max(1, round(scale / (LAYER_PARAMETERS * dim**2)))


def batch_tokens(tokens: float, seq_len: int) -> int:
    """Tokens per step: 2,048 for a million, growing as the square root of `tokens`; 2^n rows.

    The best batch size depends on the tokens, not on the model: arXiv:2505.13738.
    """
    ideal = 2048 * math.sqrt(tokens / 1e6)
    return seq_len * max(1, 2 ** round(math.log2(ideal / seq_len)))


def scaled_settings(
    scale: int, tokens: float, vocab_size: int, own: Mapping[str, Any]
) -> dict[str, Any]:
    """All settings that follow from `scale`, nested as in a recipe.

    Args:
        scale: parameters of the blocks, without embeddings.
        tokens: length of the run.
        vocab_size: vocabulary size.
        own: the recipe's own settings, which the laws use where they depend on them.
    """
    model, batch, optim = (own.get(part, {}) for part in ("model", "batch", "optim"))
    dim, layers = model_shape(scale)
    mlp = model.get("mlp", {}).get("kind", "swiglu")
    # two matrices instead of three, with as many weights
    hidden = HIDDEN_OVER_DIM * dim if mlp in ("swiglu", "geglu") else 3 * HIDDEN_OVER_DIM * dim // 2
    seq_len = batch.get("seq_len", 1024 if scale < 200_000_000 else 2048)
    per_step = batch.get("tokens", batch_tokens(tokens, seq_len))
    lr = optim.get("lr", _rounded(0.003 * math.sqrt(256 / dim)))
    # arXiv:2505.13738: optimal time scale of decay, 1 / (lr decay), by tokens per parameter
    decay = 0.92 * (tokens / scale) ** 0.527 / (lr * tokens / per_step)
    return {
        "model": {
            "dim": dim,
            "num_layers": layers,
            "max_positions": max(1024, seq_len),
            "attention": {"num_heads": dim // HEAD_DIM, "head_dim": HEAD_DIM},
            "mlp": {"kind": mlp, "hidden_dim": hidden},
        },
        "batch": {
            "tokens": per_step,
            "seq_len": seq_len,
            "micro_rows": max(1, min(per_step, 4096) // seq_len),
        },
        "optim": {
            "kind": "muon",
            "lr": lr,
            "weight_decay": _rounded(decay),
            "adamw": {"lr": _rounded(0.015 * (2048 / vocab_size) ** 0.75)},
        },
    }


def apply_scale(cfg: PretrainConfig, vocab_size: int, epoch_tokens: int) -> PretrainConfig:
    """Add what `scale` sets and the recipe does not; without `scale`, return the recipe.

    Args:
        cfg: a recipe.
        vocab_size: vocabulary size.
        epoch_tokens: tokens per epoch; 0 if there is no text yet.

    Raises:
        ConfigError: the recipe sets another width, has another optimizer than Muon, or its
            length in tokens is unknown.
    """
    if cfg.scale is None:
        return cfg
    own = cfg.model_dump(exclude_unset=True)
    dim = model_shape(cfg.scale)[0]
    if own.get("model", {}).get("dim", dim) != dim:
        raise ConfigError(
            f"scale={cfg.scale} sets model.dim={dim}, but the recipe sets {own['model']['dim']}; "
            "start from the recipe 'scaled', or remove scale"
        )
    if not isinstance(cfg.optim, MuonConfig):
        raise ConfigError(
            f"scale={cfg.scale} sets Muon's learning rates, but optim.kind={cfg.optim.kind}; use "
            "optim.kind=muon, or remove scale and set the sizes one by one"
        )
    amount, unit = parse_duration(cfg.duration)
    tokens = {"tokens": amount, "epochs": amount * epoch_tokens, "steps": 0}[unit]
    if not tokens:
        raise ConfigError(
            f"scale={cfg.scale} needs the length of the run in tokens, but "
            f"duration='{cfg.duration}'; give it in tokens, such as duration='4_000_000 tokens'"
        )
    dial = scaled_settings(cfg.scale, tokens, vocab_size, own)
    full = PretrainConfig.parse(merge(dial, own), f"scale={cfg.scale}")
    full.check_rows()
    return full


def _rounded(value: float) -> float:
    """Round to two digits: more would claim what was not measured."""
    return float(f"{value:.2g}")
