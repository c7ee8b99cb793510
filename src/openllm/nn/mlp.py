# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The MLP of a block."""

# B batch, T time, D model, F hidden

from torch import Tensor, nn
from torch.nn import functional as F

from openllm.nn.config import (
    GeGLUConfig,
    GeluConfig,
    ModelConfig,
    ReluSquaredConfig,
    SwiGLUConfig,
)
from openllm.nn.kernels.rows import swiglu


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (arXiv:2002.05202)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden_dim, bias=False)
        self.up_proj = nn.Linear(dim, hidden_dim, bias=False)
        self.down_proj = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.down_proj(self.join(self.gate_proj(x_BTD), self.up_proj(x_BTD)))

    @staticmethod
    def join(gate: Tensor, up: Tensor) -> Tensor:
        """(B, T, F) each."""
        return swiglu(gate, up)


class GeGLU(SwiGLU):
    """down(gelu(gate(x)) * up(x)) (arXiv:2002.05202)."""

    @staticmethod
    def join(gate: Tensor, up: Tensor) -> Tensor:
        """(B, T, F) each."""
        return F.gelu(gate, approximate="tanh") * up


class GeluMLP(nn.Module):
    """down(gelu(up(x))) with biases (GPT-2)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(dim, hidden_dim)
        self.down_proj = nn.Linear(hidden_dim, dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.down_proj(F.gelu(self.up_proj(x_BTD), approximate="tanh"))


class ReluSquaredMLP(nn.Module):
    """down(relu(up(x))^2) (arXiv:2109.08668)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(dim, hidden_dim, bias=False)
        self.down_proj = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.down_proj(F.relu(self.up_proj(x_BTD)).square())


def build_mlp(cfg: ModelConfig) -> nn.Module:
    """Build the MLP that `cfg.mlp` names."""
    match cfg.mlp:
        case SwiGLUConfig():
            return SwiGLU(cfg.dim, cfg.mlp.hidden_dim)
        case GeGLUConfig():
            return GeGLU(cfg.dim, cfg.mlp.hidden_dim)
        case GeluConfig():
            return GeluMLP(cfg.dim, cfg.mlp.hidden_dim)
        case ReluSquaredConfig():
            return ReluSquaredMLP(cfg.dim, cfg.mlp.hidden_dim)
