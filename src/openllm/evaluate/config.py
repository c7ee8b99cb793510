# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The settings of an evaluation. Importable without torch."""

from pydantic import Field

from openllm.core.config import Config
from openllm.engine.request import SamplingParams


class EvaluateConfig(Config):
    """What to measure, and how."""

    split: str = "test"
    documents: int | None = Field(None, ge=1, description="held-out documents to sample; none: all")
    context: int | None = Field(None, ge=2, description="tokens per window; none: as in training")
    stride: int | None = Field(None, ge=1, description="none: half the context")
    batch_tokens: int = Field(8192, ge=1, description="tokens per forward pass")
    ngram: bool = False
    order: int = Field(5, ge=1, le=10, description="longest n-gram of the baseline")
    samples: int = Field(20, ge=0)
    prompt_tokens: int = Field(16, ge=1)
    sampling: SamplingParams = SamplingParams(temperature=0.8, top_p=0.95)
    cloze: int = Field(100, ge=0, description="questions per group")
    resamples: int = Field(1000, ge=40)
    seed: int = Field(0, ge=0)
