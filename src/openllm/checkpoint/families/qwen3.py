# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Qwen3: Llama with norms of queries and keys (arXiv:2505.09388)."""

from typing import Any

from openllm.checkpoint.families.llama_like import LlamaLike
from openllm.checkpoint.families.qwen2 import read_windows, write_windows
from openllm.checkpoint.families.values import Values
from openllm.nn.config import ModelConfig


class Qwen3(LlamaLike):
    """Qwen3."""

    model_type = "qwen3"
    class_name = "Qwen3ForCausalLM"
    qk_norm = True

    def head_dim(self) -> int:
        """Width of a head if the config does not say it."""
        return 128

    def read_attention(self, values: Values, num_layers: int) -> dict[str, Any]:
        """Biases and windows."""
        return super().read_attention(values, num_layers) | read_windows(values, num_layers)

    def write_attention(self, cfg: ModelConfig) -> dict[str, Any]:
        """Biases and windows."""
        return super().write_attention(cfg) | write_windows(cfg)
