# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""SmolLM3: Llama with layers that have no positions (arXiv:2501.18795)."""

from typing import Any

from openllm.checkpoint.families.llama_like import LlamaLike
from openllm.checkpoint.families.values import Values
from openllm.checkpoint.families.windows import layer_types, read_flagged
from openllm.nn.config import ModelConfig, RopeConfig


class SmolLM3(LlamaLike):
    """SmolLM3."""

    model_type = "smollm3"
    class_name = "SmolLM3ForCausalLM"
    theta = 2_000_000.0
    tied = True
    harmless = frozenset({"max_window_layers"})

    def read_position(self, values: Values, num_layers: int, max_positions: int) -> dict[str, Any]:
        """Rotary positions in all layers but those that `no_rope_layers` marks with 0."""
        rope = super().read_position(values, num_layers, max_positions)
        return rope | {"unrotated_layers": tuple(self._unrotated(values, num_layers))}

    def _unrotated(self, values: Values, num_layers: int) -> list[int]:
        every = values.size("no_rope_layer_interval", 4)
        marks = values.take("no_rope_layers")
        if marks is None:
            return list(range(every - 1, num_layers, every))
        usable = isinstance(marks, list) and len(marks) >= num_layers
        if not usable or any(mark not in (0, 1) for mark in marks):
            raise values.refuse("no_rope_layers", f"must be a list of {num_layers} zeros and ones")
        return [layer for layer in range(num_layers) if not marks[layer]]

    def read_attention(self, values: Values, num_layers: int) -> dict[str, Any]:
        """Biases, and windows where there are no positions."""
        values.must("mlp_bias", False)
        local = self._unrotated(values, num_layers)
        return super().read_attention(values, num_layers) | read_flagged(
            values, num_layers, None, local
        )

    def write_position(self, cfg: ModelConfig, rope: RopeConfig) -> dict[str, Any]:
        """Rotary positions, and the layers that have them."""
        marks = [int(layer not in rope.unrotated_layers) for layer in range(cfg.num_layers)]
        return super().write_position(cfg, rope) | {"no_rope_layers": marks}

    def write_attention(self, cfg: ModelConfig) -> dict[str, Any]:
        """Biases and windows."""
        width = cfg.attention.window
        return super().write_attention(cfg) | {
            "mlp_bias": False,
            "use_sliding_window": width is not None,
            "sliding_window": width,
            "layer_types": layer_types(cfg),
        }
