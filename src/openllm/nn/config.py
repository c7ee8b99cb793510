# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Model configs. Importable without torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from openllm.core.config import Config
from openllm.nn.norm import NormConfig, RMSNormConfig


class RopeConfig(Config):
    """Rotary embedding (arXiv:2104.09864)."""

    kind: Literal["rope"] = "rope"
    theta: float = Field(10_000.0, gt=0)


class LearnedPositionConfig(Config):
    """A learned vector per position, added to the token embedding (GPT-2)."""

    kind: Literal["learned"] = "learned"


PositionConfig = Annotated[RopeConfig | LearnedPositionConfig, Field(discriminator="kind")]


class AttentionConfig(Config):
    """Causal grouped-query attention (arXiv:2305.13245)."""

    num_heads: int = Field(8, ge=1)
    num_kv_heads: int | None = Field(None, ge=1, description="none: one per query head")
    head_dim: int = Field(64, ge=2)
    qk_norm: bool = Field(True, description="RMS norm of each query and key head (Qwen3)")
    bias: bool = False

    @property
    def kv_heads(self) -> int:
        """Number of key-value heads."""
        return self.num_kv_heads or self.num_heads

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


class GeluConfig(Config):
    """Two linear layers with bias and a tanh-approximated GELU in between (GPT-2)."""

    kind: Literal["gelu"] = "gelu"
    hidden_dim: int = Field(2048, ge=1)


class ReluSquaredConfig(Config):
    """Two linear layers without bias and a squared ReLU in between (arXiv:2109.08668)."""

    kind: Literal["relu2"] = "relu2"
    hidden_dim: int = Field(2048, ge=1)


MLPConfig = Annotated[SwiGLUConfig | GeluConfig | ReluSquaredConfig, Field(discriminator="kind")]


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
    norm: NormConfig = RMSNormConfig()
    position: PositionConfig = RopeConfig()
    attention: AttentionConfig = AttentionConfig()
    mlp: MLPConfig = SwiGLUConfig()
    research: ResearchConfig = ResearchConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.position.kind == "rope" and self.attention.head_dim % 2:
            raise ValueError(
                f"head_dim={self.attention.head_dim} must be even for rotary positions"
            )
        return self
