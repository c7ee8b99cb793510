# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Gemma 3, text only: local layers with a theta of their own, QK norm (arXiv:2503.19786)."""

from typing import Any

from openllm.checkpoint.families.gemma2 import Gemma2
from openllm.checkpoint.families.rope import SCALINGS, read_rope, write_rope
from openllm.checkpoint.families.values import Values
from openllm.checkpoint.families.windows import GLOBAL, LOCAL
from openllm.core.errors import CheckpointError
from openllm.nn.config import ModelConfig, RopeConfig


class Gemma3(Gemma2):
    """Gemma 3."""

    model_type = "gemma3_text"
    class_name = "Gemma3ForCausalLM"
    theta = 1_000_000.0
    qk_norm = True
    period = 6
    head_softcap = None
    score_softcap = None

    def read_attention(self, values: Values, num_layers: int) -> dict[str, Any]:
        """As Gemma 2; transformers reads a cap of scores and does not use it."""
        values.must("attn_logit_softcapping")
        return super().read_attention(values, num_layers)

    def read_position(self, values: Values, num_layers: int, max_positions: int) -> dict[str, Any]:
        """Two thetas; transformers 5 nests the values by kind of layer."""
        nested = values.take("rope_parameters")
        if nested is not None and not (isinstance(nested, dict) and {LOCAL, GLOBAL} & set(nested)):
            raise values.refuse("rope_parameters", f"must have the keys {GLOBAL} and {LOCAL}")
        parts = Values(nested or {}, "rope_parameters.")
        given = {"rope_theta": values.take("rope_theta"),
                 "rope_scaling": values.take("rope_scaling"),
                 "partial_rotary_factor": values.take("partial_rotary_factor"),
                 "rope_parameters": parts.take(GLOBAL)}  # fmt: skip
        rope = self._one(given, self.theta, max_positions, SCALINGS)
        local = {"rope_theta": values.take("rope_local_base_freq"),
                 "rope_parameters": parts.take(LOCAL)}  # fmt: skip
        parts.finish()
        return rope | {"window_theta": self._one(local, 10_000.0, max_positions, ())["theta"]}

    def _one(
        self, given: dict[str, Any], theta: float, max_positions: int, scalings: tuple[str, ...]
    ) -> dict[str, Any]:
        values = Values(given)
        rope = read_rope(values, theta=theta, max_positions=max_positions, scalings=scalings)
        if rope["fraction"] != 1:
            raise CheckpointError("'partial_rotary_factor' is supported for phi3 alone")
        return rope

    def write_position(self, cfg: ModelConfig, rope: RopeConfig) -> dict[str, Any]:
        """Both thetas, for transformers 4 and 5."""
        keys = write_rope(rope)
        local = rope.theta if rope.window_theta is None else rope.window_theta
        nested = {GLOBAL: keys["rope_parameters"],
                  LOCAL: {"rope_type": "default", "rope_theta": local}}  # fmt: skip
        return keys | {"rope_parameters": nested, "rope_local_base_freq": local}
