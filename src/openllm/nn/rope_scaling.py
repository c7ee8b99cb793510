# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""How rotary frequencies are stretched for contexts longer than those trained on.

Each is a config with `stretch` and `gain`; the union is the registry. Importable without torch.
"""

# F frequencies: half of the rotated dimensions

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from openllm.core.config import Config

if TYPE_CHECKING:
    from torch import Tensor

Positive = Annotated[float, Field(gt=0)]


class LinearScaling(Config):
    """Positions are divided by a factor (arXiv:2306.15595)."""

    kind: Literal["linear"] = "linear"
    factor: float = Field(ge=1)

    def stretch(self, frequencies_F: Tensor, theta: float, positions: Tensor) -> Tensor:
        """Frequencies to use in place of theta's own."""
        return frequencies_F / self.factor

    def gain(self) -> float:
        """Factor on cosines and sines."""
        return 1.0


class Llama3Scaling(Config):
    """Low frequencies are divided, high ones kept, those between blended (Llama 3.1)."""

    kind: Literal["llama3"] = "llama3"
    factor: float = Field(ge=1)
    low_freq_factor: float = Field(1.0, gt=0)
    high_freq_factor: float = Field(4.0, gt=0)
    original_max_positions: int = Field(8192, ge=1)

    def stretch(self, frequencies_F: Tensor, theta: float, positions: Tensor) -> Tensor:
        """Frequencies to use in place of theta's own."""
        turns = self.original_max_positions * frequencies_F / (2 * math.pi)
        span = self.high_freq_factor - self.low_freq_factor
        kept = ((turns - self.low_freq_factor) / span).clamp(0, 1)
        return (1 - kept) * frequencies_F / self.factor + kept * frequencies_F

    def gain(self) -> float:
        """Factor on cosines and sines."""
        return 1.0


class YarnScaling(Config):
    """As `llama3`, but the blend is linear in the dimension, and scores are sharpened.

    arXiv:2309.00071. `attention_factor` is the factor on cosines and sines; by default it follows
    from `factor`, and from `mscale` and `mscale_all_dim` if both are given (DeepSeek).
    """

    kind: Literal["yarn"] = "yarn"
    factor: float = Field(ge=1)
    original_max_positions: int = Field(ge=1)
    beta_fast: float = Field(32.0, gt=0, description="turns above which frequencies are kept")
    beta_slow: float = Field(1.0, gt=0, description="turns below which they are divided")
    attention_factor: float | None = Field(None, gt=0)
    mscale: float | None = Field(None, ge=0)
    mscale_all_dim: float | None = Field(None, ge=0)
    truncate: bool = Field(True, description="round the ends of the blend to whole dimensions")

    def stretch(self, frequencies_F: Tensor, theta: float, positions: Tensor) -> Tensor:
        """Frequencies to use in place of theta's own."""
        import torch

        half = len(frequencies_F)
        low, high = (self._dimension(turns, 2 * half, theta) for turns in (
            self.beta_fast, self.beta_slow
        ))  # fmt: skip
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * half - 1)
        if low == high:
            high += 0.001
        place_F = torch.arange(half, dtype=torch.float32, device=frequencies_F.device)
        divided = ((place_F - low) / (high - low)).clamp(0, 1)
        return divided * frequencies_F / self.factor + (1 - divided) * frequencies_F

    def _dimension(self, turns: float, dim: int, theta: float) -> float:
        """The dimension that turns this often within the original context."""
        return (
            dim
            * math.log(self.original_max_positions / (turns * 2 * math.pi))
            / (2 * math.log(theta))
        )

    def gain(self) -> float:
        """Factor on cosines and sines."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._sharpness(self.mscale) / self._sharpness(self.mscale_all_dim)
        return self._sharpness(1.0)

    def _sharpness(self, weight: float) -> float:
        return 1.0 if self.factor <= 1 else 0.1 * weight * math.log(self.factor) + 1.0


class LongRopeScaling(Config):
    """A divisor per frequency, one set for short texts and one for long (arXiv:2402.13753).

    The long set is used for a call in which any position is beyond the original context.
    """

    kind: Literal["longrope"] = "longrope"
    short_factor: tuple[Positive, ...]
    long_factor: tuple[Positive, ...]
    original_max_positions: int = Field(ge=2)
    factor: float = Field(ge=1, description="longest context / original context")
    attention_factor: float | None = Field(None, gt=0)

    def stretch(self, frequencies_F: Tensor, theta: float, positions: Tensor) -> Tensor:
        """Frequencies to use in place of theta's own."""
        import torch

        short_F, long_F = (
            torch.tensor(factors, dtype=torch.float32, device=frequencies_F.device)
            for factors in (self.short_factor, self.long_factor)
        )
        beyond = positions.max() >= self.original_max_positions
        return frequencies_F / torch.where(beyond, long_F, short_F)

    def gain(self) -> float:
        """Factor on cosines and sines."""
        if self.attention_factor is not None:
            return self.attention_factor
        return math.sqrt(1 + math.log(self.factor) / math.log(self.original_max_positions))


RopeScaling = Annotated[
    LinearScaling | Llama3Scaling | YarnScaling | LongRopeScaling, Field(discriminator="kind")
]
