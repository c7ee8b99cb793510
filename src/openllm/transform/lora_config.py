# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Settings of low-rank adapters. Importable without torch."""

import math
from typing import Literal

from pydantic import Field

from openllm.core.config import Config


class LoraConfig(Config):
    """A low-rank adapter to train: which matrices it changes, and how."""

    kind: Literal["lora", "rslora", "dora"] = Field(
        "lora",
        description="LoRA (arXiv:2106.09685); with a scale for high ranks (arXiv:2312.03732); or "
        "with a trained length of each row (arXiv:2402.09353)",
    )
    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0, description="the change is multiplied by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="on what the adapter reads, in training")
    targets: Literal["all"] | tuple[str, ...] = Field(
        "all", description="last names of the matrices, such as q_proj; all: of attention and MLP"
    )

    @property
    def scale(self) -> float:
        """Factor on the product of the two matrices."""
        return self.alpha / (math.sqrt(self.rank) if self.kind == "rslora" else self.rank)
