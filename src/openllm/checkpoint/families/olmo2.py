# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""OLMo 2: norms after attention and MLP, and of all query and key heads (arXiv:2501.00656)."""

from typing import Any

from openllm.checkpoint.families.llama_like import LlamaLike
from openllm.nn.config import ModelConfig, RopeConfig
from openllm.nn.rope_scaling import LinearScaling


class Olmo2(LlamaLike):
    """OLMo 2."""

    model_type = "olmo2"
    class_name = "Olmo2ForCausalLM"
    eps = 1e-5
    placement = "post"
    qk_norm = True
    qk_norm_over = "all"

    def write_position(self, cfg: ModelConfig, rope: RopeConfig) -> dict[str, Any]:
        """Rotary positions; transformers 4 wants exactly `type` and `factor` here."""
        keys = super().write_position(cfg, rope)
        if isinstance(rope.scaling, LinearScaling):
            keys["rope_scaling"] = {"type": "linear", "factor": rope.scaling.factor}
        return keys
