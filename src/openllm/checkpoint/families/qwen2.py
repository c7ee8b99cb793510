# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Qwen2 and Qwen2.5: Llama with biases on query, key and value (arXiv:2407.10671)."""

from typing import Any

from openllm.checkpoint.families.llama_like import LlamaLike
from openllm.checkpoint.families.values import Values
from openllm.checkpoint.families.windows import layer_types, read_flagged
from openllm.nn.config import ModelConfig


def read_windows(values: Values, num_layers: int) -> dict[str, Any]:
    """The window, which begins at layer `max_window_layers`."""
    first = values.take("max_window_layers", 28)
    if not isinstance(first, int) or isinstance(first, bool) or first < 0:
        raise values.refuse("max_window_layers", "must be a number of layers")
    return read_flagged(values, num_layers, 4096, range(min(first, num_layers), num_layers))


def write_windows(cfg: ModelConfig) -> dict[str, Any]:
    """The window; without `layer_types` where all readers agree that there is none."""
    width = cfg.attention.window
    keys = {"use_sliding_window": width is not None, "sliding_window": width}
    return keys if width is None else keys | {"layer_types": layer_types(cfg)}


class Qwen2(LlamaLike):
    """Qwen2."""

    model_type = "qwen2"
    class_name = "Qwen2ForCausalLM"

    def read_attention(self, values: Values, num_layers: int) -> dict[str, Any]:
        """Biases and windows."""
        values.must("use_mrope", False)
        return {"bias": True, "output_bias": False, **read_windows(values, num_layers)}

    def write_attention(self, cfg: ModelConfig) -> dict[str, Any]:
        """Windows."""
        return write_windows(cfg)
