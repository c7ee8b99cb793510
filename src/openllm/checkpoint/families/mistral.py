# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Mistral: Llama with a sliding window in all layers, or in none (arXiv:2310.06825)."""

from typing import Any

from openllm.checkpoint.families.llama_like import LlamaLike
from openllm.checkpoint.families.values import Values
from openllm.checkpoint.families.windows import GLOBAL, LOCAL, read_width, window_of
from openllm.nn.config import ModelConfig


class Mistral(LlamaLike):
    """Mistral."""

    model_type = "mistral"
    class_name = "MistralForCausalLM"

    def read_attention(self, values: Values, num_layers: int) -> dict[str, Any]:
        """The window; `layer_types` may say again where it is."""
        width = read_width(values, 4096)
        kind = GLOBAL if width is None else LOCAL
        values.words("layer_types", [kind], num_layers)
        return window_of(width, range(num_layers), num_layers)

    def write_attention(self, cfg: ModelConfig) -> dict[str, Any]:
        """The window."""
        return {"sliding_window": cfg.attention.window}
