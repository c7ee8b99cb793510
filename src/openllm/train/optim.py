# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Optimizers: each is a config with a `build(model)`; the union is the registry.

To add an optimizer, write its config here and add it to `OptimConfig`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from openllm.core.config import Config

if TYPE_CHECKING:
    from torch import nn
    from torch.nn import Parameter
    from torch.optim import Optimizer


class AdamWConfig(Config):
    """AdamW (arXiv:1711.05101); weight decay on matrices only."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)

    def build(self, model: nn.Module) -> list[Optimizer]:
        """Build one AdamW over all parameters."""
        decayed = [p for p in model.parameters() if p.ndim >= 2]
        plain = [p for p in model.parameters() if p.ndim < 2]
        return [_adamw(self, decayed, plain)]


class MuonConfig(Config):
    """Muon for block matrices, AdamW for embeddings, head and gains.

    Updates have AdamW's typical magnitude, so learning rates and weight decay carry over.
    """

    kind: Literal["muon"] = "muon"
    lr: float = Field(0.01, gt=0)
    momentum: float = Field(0.95, ge=0, lt=1)
    weight_decay: float = Field(0.1, ge=0)
    cautious: bool = Field(False, description="decay only weights that the update also shrinks")
    ns_steps: int = Field(5, ge=1, le=12, description="Newton-Schulz iterations")
    adamw: AdamWConfig = AdamWConfig(lr=3e-3)

    def build(self, model: nn.Module) -> list[Optimizer]:
        """Build Muon, then AdamW."""
        import torch

        from openllm.train.muon import Muon
        from openllm.transform.precision import has_fast_bf16

        blocks = {p for name, p in model.named_parameters() if ".layers." in f".{name}"}
        hidden = [p for p in model.parameters() if p in blocks and p.ndim == 2]
        others = [p for p in model.parameters() if p not in blocks and p.ndim >= 2]
        plain = [p for p in model.parameters() if p.ndim < 2]
        muon = Muon(
            hidden,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            cautious=self.cautious,
            ns_steps=self.ns_steps,
            dtype=torch.bfloat16 if has_fast_bf16(hidden[0].device.type) else torch.float32,
        )
        return [muon, _adamw(self.adamw, others, plain)]


def _adamw(cfg: AdamWConfig, decayed: list[Parameter], plain: list[Parameter]) -> Optimizer:
    from torch.optim import AdamW

    groups = [
        {"params": decayed, "weight_decay": cfg.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    betas = (cfg.beta1, cfg.beta2)
    return AdamW(groups, lr=cfg.lr, betas=betas, eps=cfg.eps, fused=True)


OptimConfig = Annotated[AdamWConfig | MuonConfig, Field(discriminator="kind")]
