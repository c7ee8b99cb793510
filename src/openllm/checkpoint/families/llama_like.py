# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What most families share; each of them is a small subclass in a file of its own."""

from collections.abc import Sequence
from typing import Any, ClassVar

from openllm.checkpoint.families.base import Family, multiple
from openllm.checkpoint.families.rope import SCALINGS, read_rope, write_rope
from openllm.checkpoint.families.values import MOST_LAYERS, Values
from openllm.core.errors import CheckpointError
from openllm.nn.config import ModelConfig, RopeConfig


class LlamaLike(Family):
    """Rotary positions, RMS norms and a gated MLP: most families since Llama (arXiv:2302.13971).

    Attributes:
        theta, eps, tied: what a config means that does not say it.
        placement, qk_norm, qk_norm_over, unit_offset, mlp: as in `ModelConfig`.
        activation: the key and the values that name the MLP's activation.
        scalings: supported kinds of rotary scaling.
        partial: whether a part of each head may stay unrotated.
        divides: whether transformers wants the width to be a multiple of the number of heads.
    """

    theta: ClassVar[float] = 10_000.0
    eps: ClassVar[float] = 1e-6
    tied: ClassVar[bool] = False
    placement: ClassVar[str] = "pre"
    qk_norm: ClassVar[bool] = False
    qk_norm_over: ClassVar[str] = "head"
    unit_offset: ClassVar[bool] = False
    mlp: ClassVar[str] = "swiglu"
    activation: ClassVar[tuple[str, ...]] = ("hidden_act", "silu", "swish")
    scalings: ClassVar[Sequence[str]] = SCALINGS
    partial: ClassVar[bool] = False
    divides: ClassVar[bool] = False

    def read(self, values: Values) -> dict[str, Any]:
        """Values of `ModelConfig`."""
        heads = values.size("num_attention_heads")
        dim = values.size("hidden_size")
        layers = values.size("num_hidden_layers", most=MOST_LAYERS)
        kv_heads = values.size("num_key_value_heads", heads)
        multiple(values, "num_attention_heads", "num_key_value_heads", kv_heads)
        if "head_dim" not in values and self.head_dim() is None:
            multiple(values, "hidden_size", "num_attention_heads", heads)
        name, *allowed = self.activation
        values.must(name, *allowed)
        longest = values.size("max_position_embeddings", 2048)
        return {
            "vocab_size": values.size("vocab_size"),
            "dim": dim,
            "num_layers": layers,
            "max_positions": longest,
            "tie_embeddings": values.flag("tie_word_embeddings", self.tied),
            "init_std": values.number("initializer_range", 0.02),
            "norm": {
                "kind": "rms",
                "eps": values.number("rms_norm_eps", self.eps),
                "unit_offset": self.unit_offset,
            },
            "norm_placement": self.placement,
            "position": self.read_position(values, layers, longest),
            "attention": {
                "num_heads": heads,
                "num_kv_heads": kv_heads,
                "head_dim": values.size("head_dim", self.head_dim() or max(1, dim // heads)),
                "qk_norm": self.qk_norm,
                "qk_norm_over": self.qk_norm_over,
                **self.read_attention(values, layers),
            },
            "mlp": {"kind": self.mlp, "hidden_dim": values.size("intermediate_size")},
            **self.read_rest(values, dim),
        }

    def head_dim(self) -> int | None:
        """Width of a head if the config does not say it; none: width / heads."""
        return None

    def read_position(self, values: Values, num_layers: int, max_positions: int) -> dict[str, Any]:
        """Values of `RopeConfig`."""
        rope = read_rope(
            values, theta=self.theta, max_positions=max_positions, scalings=self.scalings
        )
        if rope["fraction"] != 1 and not self.partial:
            raise CheckpointError(
                f"'partial_rotary_factor' is {rope['fraction']:g}, but only 1 is supported for "
                f"{self.model_type}"
            )
        return rope

    def read_attention(self, values: Values, num_layers: int) -> dict[str, Any]:
        """Further values of `AttentionConfig`."""
        return {"bias": values.flag("attention_bias", False)}

    def read_rest(self, values: Values, dim: int) -> dict[str, Any]:
        """Further values of `ModelConfig`."""
        return {}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        """The keys of `config.json` that describe the architecture."""
        shape = cfg.attention
        assert isinstance(cfg.position, RopeConfig)
        return {
            "vocab_size": cfg.vocab_size,
            "tie_word_embeddings": cfg.tie_embeddings,
            "initializer_range": cfg.init_std,
            "hidden_size": cfg.dim,
            "intermediate_size": cfg.mlp.hidden_dim,
            "num_hidden_layers": cfg.num_layers,
            "num_attention_heads": shape.num_heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            self.activation[0]: self.activation[1],
            "max_position_embeddings": cfg.max_positions,
            "rms_norm_eps": cfg.norm.eps,
            "attention_dropout": 0.0,
            **self.write_position(cfg, cfg.position),
            **self.write_attention(cfg),
        }

    def write_position(self, cfg: ModelConfig, rope: RopeConfig) -> dict[str, Any]:
        """The keys of rotary positions."""
        return write_rope(rope)

    def write_attention(self, cfg: ModelConfig) -> dict[str, Any]:
        """The keys that differ from family to family."""
        return {"attention_bias": cfg.attention.bias}

    def fits(self, cfg: ModelConfig) -> bool:
        """Whether reading what the family writes gives the same function."""
        if self.divides and cfg.dim % cfg.attention.num_heads:
            return False
        return super().fits(cfg)
