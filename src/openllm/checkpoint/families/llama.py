# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Llama 2 and 3, SmolLM2 and the many models of their shape (arXiv:2302.13971, 2407.21783)."""

from typing import Any

from openllm.checkpoint.families.llama_like import LlamaLike
from openllm.checkpoint.families.values import Values
from openllm.nn.config import ModelConfig


class Llama(LlamaLike):
    """Llama."""

    model_type = "llama"
    class_name = "LlamaForCausalLM"
    divides = True

    def read_attention(self, values: Values, num_layers: int) -> dict[str, Any]:
        """Biases are all or none."""
        values.must("mlp_bias", False)
        values.must("rope_interleaved", False)
        return super().read_attention(values, num_layers)

    def write_attention(self, cfg: ModelConfig) -> dict[str, Any]:
        """Biases."""
        return {**super().write_attention(cfg), "mlp_bias": False}
