# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Weight initialisation."""

import torch
from torch import nn

from openllm.nn.config import ModelConfig
from openllm.nn.norm import RMSNormConfig

RESIDUAL = ("o_proj.weight", "down_proj.weight")
"""Matrices that write into the residual stream: scaled by 1/sqrt(2 x layers) as in GPT-2, and by
`init_residual`."""


@torch.no_grad()
def init_weights(module: nn.Module, cfg: ModelConfig, seed: int) -> None:
    """Initialise: normal matrices with `init_std`, zero biases, unit gains (`research`: zero).

    Depends on the seed alone.
    """
    offset = isinstance(cfg.norm, RMSNormConfig) and cfg.norm.unit_offset
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if name.endswith("bias") or (name.startswith("research.") and parameter.ndim < 2):
            parameter.zero_()
        elif parameter.ndim < 2:
            parameter.fill_(0.0 if offset else 1.0)
        else:
            scaled = name.endswith(RESIDUAL)
            factor = cfg.init_residual * (2 * cfg.num_layers) ** -0.5 if scaled else 1.0
            parameter.normal_(0.0, cfg.init_std * factor, generator=generator)
