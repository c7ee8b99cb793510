# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Settings of the engine. Importable without torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from openllm.core.config import Config

Kind = Literal["auto", "fp32", "bf16", "int8", "int4"]
"""Precision of the weights in memory."""


class SpeculationConfig(Config):
    """Guess tokens and check them all in one run (arXiv:2211.17192); the output stays the same."""

    kind: Literal["ngram", "model"] = Field(
        "ngram", description="ngram: what followed the same words before; model: a smaller model"
    )
    tokens: int = Field(4, ge=1, le=32, description="tokens guessed at a time")
    model: str | None = Field(None, description="folder of the smaller model, for 'model'")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "model") != (self.model is not None):
            raise ValueError("speculation.model must be given for kind 'model', and only for it")
        return self


class EngineConfig(Config):
    """How the engine runs a model."""

    precision: Kind = Field(
        "auto",
        description="auto: as the folder is quantized, else bf16 where the CPU or GPU has it",
    )
    device: str = Field("auto", description="auto: CUDA if there is a GPU, else the CPU")
    block_size: int = Field(16, ge=1, description="tokens per block of the cache")
    cache_tokens: int | None = Field(
        None,
        ge=1,
        description="tokens in the cache; none: what 64 full contexts need, as far as cache_bytes "
        "allow",
    )
    cache_bytes: int | None = Field(
        None,
        ge=1,
        description="most memory of the cache if cache_tokens is not given; none: a quarter of the "
        "free memory",
    )
    max_batch_tokens: int = Field(512, ge=1, description="most tokens computed in one run")
    max_sequences: int = Field(64, ge=1, description="most continuations computed at a time")
    prefix_cache: bool = Field(True, description="keep what was read, for prompts that begin alike")
    preemption: Literal["recompute", "swap"] = Field(
        "recompute", description="how a continuation that had to make place goes on"
    )
    exact: bool = Field(
        False,
        description="the same bits whatever else is computed, by slower means where there is no "
        "kernel; the compiled kernels do so always",
    )
    kernels: bool = Field(True, description="use the compiled kernels where there are some")
    speculation: SpeculationConfig | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        each = 1 + (self.speculation.tokens if self.speculation else 0)
        if self.max_batch_tokens < self.max_sequences * each:
            raise ValueError(
                f"max_batch_tokens={self.max_batch_tokens} must be at least "
                f"{self.max_sequences * each}: {each} for each of max_sequences"
            )
        return self
