# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Gemma 2: soft caps, windows in every other layer, four norms a layer (arXiv:2408.00118)."""

from typing import Any

from openllm.checkpoint.families.llama_like import LlamaLike
from openllm.checkpoint.families.values import Values
from openllm.checkpoint.families.windows import layer_types, read_types, read_width, window_of
from openllm.nn.config import ModelConfig


class Gemma2(LlamaLike):
    """Gemma 2.

    Attributes:
        period: one layer in so many has no window, if the config does not list them.
        head_softcap, score_softcap: if the config does not say them.
    """

    model_type = "gemma2"
    class_name = "Gemma2ForCausalLM"
    kinds = ("rms", "rope", "geglu")
    # older files have these; the model uses hidden_activation and sliding_window
    harmless = frozenset({"hidden_act", "sliding_window_size"})
    tied = True
    divides = True
    placement = "both"
    unit_offset = True
    mlp = "geglu"
    activation = ("hidden_activation", "gelu_pytorch_tanh", "gelu_new")
    period = 2
    head_softcap: float | None = 30.0
    score_softcap: float | None = 50.0

    def head_dim(self) -> int:
        """Width of a head if the config does not say it."""
        return 256

    def read_attention(self, values: Values, num_layers: int) -> dict[str, Any]:
        """Biases, scale, soft cap and windows."""
        values.must("use_bidirectional_attention", False)
        scalar = values.number("query_pre_attn_scalar", 256)
        width = self.head_dim() if "head_dim" not in values else values.size("head_dim")
        every = values.size("sliding_window_pattern", self.period)
        local = read_types(values, num_layers)
        if local is None:
            local = [layer for layer in range(num_layers) if (layer + 1) % every]
        return {
            **super().read_attention(values, num_layers),
            "scale": None if scalar == width else scalar**-0.5,
            "softcap": values.number_or_none("attn_logit_softcapping", self.score_softcap),
            **window_of(read_width(values, 4096), local, num_layers),
        }

    def read_rest(self, values: Values, dim: int) -> dict[str, Any]:
        """Scaled embeddings and capped logits."""
        cap = values.number_or_none("final_logit_softcapping", self.head_softcap)
        return {"embed_scale": dim**0.5, "logit_softcap": cap}

    def write_attention(self, cfg: ModelConfig) -> dict[str, Any]:
        """Biases, scale, soft caps and windows."""
        shape = cfg.attention
        scalar = shape.head_dim if shape.scale is None else round(shape.scale**-2)
        return super().write_attention(cfg) | {
            "query_pre_attn_scalar": scalar,
            "attn_logit_softcapping": shape.softcap,
            "final_logit_softcapping": cfg.logit_softcap,
            "sliding_window": shape.window,
            "layer_types": layer_types(cfg),
        }
