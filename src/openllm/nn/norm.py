# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Norms: each is a config with a `build(dim)`; the union is the registry.

To add a norm, write its config (and module) here and add it to `NormConfig`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from openllm.core.config import Config

if TYPE_CHECKING:
    from torch import nn


class RMSNormConfig(Config):
    """RMS norm, without mean or bias (arXiv:1910.07467)."""

    kind: Literal["rms"] = "rms"
    eps: float = Field(1e-6, gt=0)
    unit_offset: bool = Field(False, description="the gain is 1 + weight (Gemma)")

    def build(self, dim: int) -> nn.Module:
        """Build a norm over the last axis of size `dim`."""
        from openllm.nn.rms_norm import RMSNorm

        return RMSNorm(dim, self.eps, unit_offset=self.unit_offset)

    def num_parameters(self, dim: int) -> int:
        """Gain only."""
        return dim


class LayerNormConfig(Config):
    """Layer norm with gain and bias (arXiv:1607.06450)."""

    kind: Literal["layer"] = "layer"
    eps: float = Field(1e-5, gt=0)

    def build(self, dim: int) -> nn.Module:
        """Build a norm over the last axis of size `dim`."""
        from torch import nn

        return nn.LayerNorm(dim, eps=self.eps)

    def num_parameters(self, dim: int) -> int:
        """Gain and bias."""
        return 2 * dim


NormConfig = Annotated[RMSNormConfig | LayerNormConfig, Field(discriminator="kind")]
