# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Sliding windows in a `config.json`: in which layers, and how wide (arXiv:2310.06825)."""

from collections.abc import Iterable
from typing import Any

from openllm.checkpoint.families.values import Values
from openllm.core.errors import CheckpointError
from openllm.nn.config import ModelConfig

LOCAL, GLOBAL = "sliding_attention", "full_attention"


def window_of(width: int | None, layers: Iterable[int], num_layers: int) -> dict[str, Any]:
    """Values of `AttentionConfig` for a window in some layers."""
    chosen = tuple(layers)
    if width is None or not chosen:
        return {}
    return {"window": width, "window_layers": None if len(chosen) == num_layers else chosen}


def read_types(values: Values, num_layers: int) -> list[int] | None:
    """The layers that `layer_types` gives a window; none without that list."""
    types = values.words("layer_types", (LOCAL, GLOBAL), num_layers)
    return None if types is None else [n for n, kind in enumerate(types) if kind == LOCAL]


def read_width(values: Values, default: int | None) -> int | None:
    """The window; none if it is null."""
    if values.take("sliding_window", default) is None:
        return None
    return values.size("sliding_window", default)


def read_flagged(
    values: Values, num_layers: int, default: int | None, local: Iterable[int]
) -> dict[str, Any]:
    """The window of a family that has `use_sliding_window` (Qwen, SmolLM3).

    Args:
        values: the config.
        num_layers: of the model.
        default: the width if the config names none.
        local: layers with the window if the config has no `layer_types`.
    """
    used = values.flag("use_sliding_window", False)
    width = read_width(values, default)
    types = read_types(values, num_layers)
    if used:
        return window_of(width, local if types is None else types, num_layers)
    if types:
        raise CheckpointError("'layer_types' names windows, but 'use_sliding_window' is false")
    return {}


def layer_types(cfg: ModelConfig) -> list[str]:
    """The list `layer_types` of a config."""
    windows = (cfg.attention.window_of(layer) for layer in range(cfg.num_layers))
    return [GLOBAL if window is None else LOCAL for window in windows]
