# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A low-rank change of a matrix, and the linear layer that trains one.

LoRA (arXiv:2106.09685) adds `scale B A` to a frozen matrix. DoRA (arXiv:2402.09353) then also gives
each of its rows a length of its own.
"""

# K in, N out, R rank

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LowRank(NamedTuple):
    """The change of one (N, K) matrix.

    Attributes:
        a_RK, b_NR: the factors.
        scale: of their product.
        magnitude_N: the lengths of the rows of the changed matrix, if DoRA sets them.
    """

    a_RK: Tensor
    b_NR: Tensor
    scale: float
    magnitude_N: Tensor | None = None

    @property
    def rank(self) -> int:
        """Number of rows of A."""
        return self.a_RK.shape[0]

    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [part for part in (self.a_RK, self.b_NR, self.magnitude_N) if part is not None]

    def sum(self, weight_NK: Tensor) -> Tensor:
        """W + scale B A in float32, before DoRA."""
        return weight_NK.float() + self.scale * (self.b_NR.float() @ self.a_RK.float())

    def row_factors(self, weight_NK: Tensor) -> Tensor:
        """What DoRA multiplies each row of `sum` by, (N,); only its numerator has a gradient."""
        assert self.magnitude_N is not None
        with torch.no_grad():
            lengths_N = row_lengths(self.sum(weight_NK))
        return self.magnitude_N / lengths_N

    def merge(self, weight_NK: Tensor) -> Tensor:
        """The changed matrix, in float32."""
        summed_NK = self.sum(weight_NK)
        if self.magnitude_N is None:
            return summed_NK
        return self.row_factors(weight_NK)[:, None] * summed_NK


def row_lengths(weight_NK: Tensor) -> Tensor:
    """Euclidean length of each row, (N,) in float32; never zero."""
    return weight_NK.float().norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class Adapter:
    """Changes of several matrices of a model.

    Attributes:
        changes: by the name of the matrix in the model's state dict.
        rank_stabilised: whether scale is alpha / sqrt(rank), not alpha / rank (arXiv:2312.03732);
            matters only when it is written to a file.
        dropout: of the inputs of A, in training.
    """

    changes: Mapping[str, LowRank]
    rank_stabilised: bool = False
    dropout: float = 0.0

    @property
    def num_bytes(self) -> int:
        """Of all tensors; those that several matrices share count once."""
        kept = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for change in self.changes.values()
            for tensor in change.tensors()
        }
        return sum(kept.values())


class LoraLinear(nn.Module):
    """A linear layer with a low-rank change; weight and bias keep their names."""

    def __init__(
        self,
        base: nn.Linear,
        change: LowRank,
        *,
        dropout: float = 0.0,
        rank_stabilised: bool = False,
    ) -> None:
        super().__init__()
        self.weight = base.weight
        self.register_parameter("bias", base.bias)
        self.lora_A = nn.Parameter(change.a_RK)
        self.lora_B = nn.Parameter(change.b_NR)
        magnitude = change.magnitude_N
        self.magnitude = None if magnitude is None else nn.Parameter(magnitude)
        self.scale, self.rank_stabilised = change.scale, rank_stabilised
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("_unmerged", None, persistent=False)
        self._unmerged: Tensor | None

    @property
    def change(self) -> LowRank:
        """The change as it is now; its tensors are the parameters."""
        return LowRank(self.lora_A, self.lora_B, self.scale, self.magnitude)

    @property
    def merged(self) -> bool:
        """Whether `weight` holds the change."""
        return self._unmerged is not None

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        y = F.linear(x, self.weight, self.bias)
        if self.merged:
            return y
        kept = self.dropout(x)
        low = F.linear(kept.to(self.lora_A.dtype), self.lora_A)
        added = self.scale * F.linear(low, self.lora_B)
        if self.magnitude is not None:
            factors_N = self.change.row_factors(self.weight)
            if self.training and self.dropout.p:
                product = F.linear(kept, self.weight)
            else:
                product = y if self.bias is None else y - self.bias
            added = (factors_N - 1) * product + factors_N * added
        return y + added.to(y.dtype)

    @torch.no_grad()
    def merge(self) -> None:
        """Put the change into `weight`; the old one is kept."""
        if not self.merged:
            self._unmerged = self.weight.clone()
            self.weight.copy_(self.change.merge(self.weight))

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put back the weight from before `merge`, bit for bit."""
        if self._unmerged is not None:
            self.weight.copy_(self._unmerged)
            self._unmerged = None

    def plain(self) -> nn.Linear:
        """A linear layer with this weight as it is now, merged or not."""
        width, height = self.weight.shape[::-1]
        layer = nn.Linear(width, height, bias=self.bias is not None, device="meta")
        layer.weight = self.weight
        layer.register_parameter("bias", self.bias)
        return layer.train(self.training)


def adaptable(model: nn.Module) -> dict[str, nn.Linear]:
    """The matrices of attention and MLP by the name of their module, in order.

    The head is not among them: it may be the embedding, and nobody calls it as a layer.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if name.startswith("layers.") and isinstance(module, nn.Linear)
    }
