# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Runs a model for the engine with the compiled kernels."""

from openllm.engine.config import EngineConfig
from openllm.nn.config import ModelConfig


def why_not_compiled(model_cfg: ModelConfig, device: str, cfg: EngineConfig) -> str | None:
    """Why the compiled kernels cannot run a model; none if they can."""
    return "not merged"


class CompiledRunner:
    """To come."""
