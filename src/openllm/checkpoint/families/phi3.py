# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Phi-3: Mistral with stacked matrices, LongRoPE and partly rotated heads (arXiv:2404.14219)."""

from typing import Any, ClassVar

from openllm.checkpoint.families.mistral import Mistral
from openllm.checkpoint.families.values import Values
from openllm.checkpoint.families.windows import read_width, window_of
from openllm.nn.config import ModelConfig, RopeConfig
from openllm.nn.rope_scaling import LongRopeScaling

FACTORS = ("short_factor", "long_factor")


class Phi3(Mistral):
    """Phi-3 and Phi-4-mini."""

    model_type = "phi3"
    class_name = "Phi3ForCausalLM"
    eps = 1e-5
    scalings = ("longrope",)
    partial = True
    harmless = frozenset({"resid_pdrop", "embd_pdrop"})
    packed: ClassVar = {
        "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    }

    def read_attention(self, values: Values, num_layers: int) -> dict[str, Any]:
        """The window; Phi-4-mini states features that it does not have."""
        for name in ("attention_bias", "mlp_bias", "lm_head_bias"):
            values.must(name, False)
        values.must("full_attn_mod", 1)
        values.must("interpolate_factor", 1)
        return window_of(read_width(values, None), range(num_layers), num_layers)

    def write_position(self, cfg: ModelConfig, rope: RopeConfig) -> dict[str, Any]:
        """Rotary positions; transformers 4 wants exactly `type` and two lists of factors."""
        keys = super().write_position(cfg, rope)
        keys["rope_parameters"]["partial_rotary_factor"] = rope.fraction
        keys |= {"partial_rotary_factor": rope.fraction, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
        scaling = rope.scaling
        if not isinstance(scaling, LongRopeScaling):
            return keys
        keys["original_max_position_embeddings"] = scaling.original_max_positions
        usual = scaling.factor == cfg.max_positions / scaling.original_max_positions
        if usual and scaling.attention_factor is None:
            lists = {name: list(getattr(scaling, name)) for name in FACTORS}
            keys["rope_scaling"] = {"type": "longrope", **lists}
        return keys

    def fits(self, cfg: ModelConfig) -> bool:
        """Transformers counts frequencies by width / heads."""
        rope, shape = cfg.position, cfg.attention
        scaled = isinstance(rope, RopeConfig) and (rope.fraction, rope.scaling) != (1.0, None)
        if scaled and shape.num_heads * shape.head_dim != cfg.dim:
            return False
        return super().fits(cfg)
