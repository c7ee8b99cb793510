# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Model configs. Importable without torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from openllm.core.config import Config
from openllm.nn.norm import NormConfig, RMSNormConfig
from openllm.nn.rope_scaling import LongRopeScaling, RopeScaling


class RopeConfig(Config):
    """Rotary embedding (arXiv:2104.09864)."""

    kind: Literal["rope"] = "rope"
    theta: float = Field(10_000.0, gt=0)
    scaling: RopeScaling | None = Field(None, description="for contexts longer than those trained")
    fraction: float = Field(1.0, gt=0, le=1, description="share of each head that is rotated")
    window_theta: float | None = Field(
        None, gt=0, description="theta of layers with a window, which are not scaled (Gemma 3)"
    )
    unrotated_layers: tuple[int, ...] = Field(
        (), description="layers without positions (arXiv:2501.18795, SmolLM3)"
    )

    def rotated_dim(self, head_dim: int) -> int:
        """Number of rotated dimensions of a head."""
        return int(head_dim * self.fraction)


class LearnedPositionConfig(Config):
    """A learned vector per position, added to the token embedding (GPT-2)."""

    kind: Literal["learned"] = "learned"


PositionConfig = Annotated[RopeConfig | LearnedPositionConfig, Field(discriminator="kind")]


class AttentionConfig(Config):
    """Causal grouped-query attention (arXiv:2305.13245)."""

    num_heads: int = Field(8, ge=1)
    num_kv_heads: int | None = Field(None, ge=1, description="none: one per query head")
    head_dim: int = Field(64, ge=2)
    qk_norm: bool = Field(True, description="norm of queries and keys")
    qk_norm_over: Literal["head", "all"] = Field(
        "head", description="each head by itself (Qwen3), or all heads together (OLMo 2)"
    )
    bias: bool = Field(False, description="of the query, key and value projections")
    output_bias: bool | None = Field(None, description="none: as bias")
    scale: float | None = Field(None, gt=0, description="factor on scores; none: head_dim^-0.5")
    softcap: float | None = Field(
        None, gt=0, description="scores become cap tanh(score / cap) (Gemma 2, arXiv:2408.00118)"
    )
    window: int | None = Field(
        None, ge=1, description="a token sees this many tokens, itself included (arXiv:2310.06825)"
    )
    window_layers: tuple[int, ...] | None = Field(
        None, description="layers that have the window; none: all"
    )

    @property
    def kv_heads(self) -> int:
        """Number of key-value heads."""
        return self.num_kv_heads or self.num_heads

    @property
    def has_output_bias(self) -> bool:
        """Whether the output projection has a bias."""
        return self.bias if self.output_bias is None else self.output_bias

    def window_of(self, layer: int) -> int | None:
        """The window of a layer, if it has one."""
        has = self.window_layers is None or layer in self.window_layers
        return self.window if has else None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} must be a multiple of num_kv_heads={self.kv_heads}"
            )
        return self


class SwiGLUConfig(Config):
    """Gated MLP: down(silu(gate(x)) * up(x)) (arXiv:2002.05202)."""

    kind: Literal["swiglu"] = "swiglu"
    hidden_dim: int = Field(1536, ge=1)


class GeGLUConfig(Config):
    """Gated MLP: down(gelu(gate(x)) * up(x)), GELU approximated by tanh (arXiv:2002.05202)."""

    kind: Literal["geglu"] = "geglu"
    hidden_dim: int = Field(1536, ge=1)


class GeluConfig(Config):
    """Two linear layers with bias and a tanh-approximated GELU in between (GPT-2)."""

    kind: Literal["gelu"] = "gelu"
    hidden_dim: int = Field(2048, ge=1)


class ReluSquaredConfig(Config):
    """Two linear layers without bias and a squared ReLU in between (arXiv:2109.08668)."""

    kind: Literal["relu2"] = "relu2"
    hidden_dim: int = Field(2048, ge=1)


MLPConfig = Annotated[
    SwiGLUConfig | GeGLUConfig | GeluConfig | ReluSquaredConfig, Field(discriminator="kind")
]


class ResearchConfig(Config):
    """Features that no public architecture has; only OpenLLM loads a model with one."""

    unet_skips: bool = Field(
        False, description="layers in the second half see the outputs of those in the first half"
    )
    embedding_mix: bool = Field(False, description="each layer sees the embedding again")
    value_embeddings: bool = Field(
        False, description="a vector per token is added to the values of the first and last layers"
    )


class ModelConfig(Config):
    """A decoder-only transformer; the defaults are the preset `small`, shaped like Qwen3."""

    vocab_size: int = Field(32_000, ge=2)
    dim: int = Field(512, ge=2, description="width of the residual stream")
    num_layers: int = Field(6, ge=1)
    max_positions: int = Field(1024, ge=1, description="longest context")
    tie_embeddings: bool = True
    dropout: float = Field(0.0, ge=0, lt=1, description="on embeddings and residual branches")
    init_std: float = Field(0.02, gt=0)
    init_residual: float = Field(
        1.0, ge=0, description="factor on matrices that write into the residual stream; 0: zeros"
    )
    embed_scale: float | None = Field(None, gt=0, description="factor on token embeddings (Gemma)")
    logit_softcap: float | None = Field(
        None, gt=0, description="logits become cap tanh(logit / cap) (Gemma 2, arXiv:2408.00118)"
    )
    norm: NormConfig = RMSNormConfig()
    norm_placement: Literal["pre", "post", "both"] = Field(
        "pre", description="before attention and MLP, after each (OLMo 2), or both (Gemma 2 and 3)"
    )
    position: PositionConfig = RopeConfig()
    attention: AttentionConfig = AttentionConfig()
    mlp: MLPConfig = SwiGLUConfig()
    research: ResearchConfig = ResearchConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.position.kind == "rope":
            self._check_rope(self.position)
        layers = self.attention.window_layers or ()
        self._check_layers("attention.window_layers", layers)
        return self

    def _check_rope(self, rope: RopeConfig) -> None:
        dim = rope.rotated_dim(self.attention.head_dim)
        if dim < 2 or dim % 2:
            raise ValueError(
                f"head_dim={self.attention.head_dim} must be even for rotary positions, as must "
                f"the part that position.fraction={rope.fraction:g} leaves, {dim}"
            )
        self._check_layers("position.unrotated_layers", rope.unrotated_layers)
        if isinstance(rope.scaling, LongRopeScaling):
            for name in ("short_factor", "long_factor"):
                count = len(getattr(rope.scaling, name))
                if count != dim // 2:
                    raise ValueError(
                        f"position.scaling.{name} has {count} values, but there are "
                        f"{dim // 2} frequencies"
                    )

    def _check_layers(self, name: str, layers: tuple[int, ...]) -> None:
        wrong = [layer for layer in layers if not 0 <= layer < self.num_layers]
        if wrong:
            raise ValueError(f"{name} names layer {wrong[0]}, but there are {self.num_layers}")
