# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The Muon optimizer for matrices (https://kellerjordan.github.io/posts/muon)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

A, B, C = 3.4445, -4.7750, 2.0315
"""Of a x + b x^3 + c x^5, which brings singular values towards 1 whatever the rounding.

Coefficients that get there faster (arXiv:2505.16932) amplify the errors of bfloat16 (docs/LOG.md).
"""


def orthogonalize(matrix: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """About U V^T of the singular value decomposition, by `steps` Newton-Schulz iterations.

    Args:
        matrix: of two axes; not all zero.
        steps: 5 bring singular values of 0.003 of the norm and above to between 0.6 and 1.21.
        dtype: of the products; bfloat16 is enough.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(dtype)
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        polynomial = (gram @ gram).mul_(C).add_(gram, alpha=B)
        polynomial.diagonal().add_(A)
        x = polynomial @ x  # plain products: on a CPU addmm() takes half as long again
    return x.T if tall else x


class Muon(Optimizer):
    """Nesterov momentum, made orthogonal, at the typical size of AdamW's updates.

    Updates are scaled by 0.2 sqrt(max(shape)) (arXiv:2502.16982), so that learning rates and
    weight decay carry over from AdamW.

    Args:
        parameters: matrices.
        lr: learning rate.
        momentum: share of the past in the running mean of gradients.
        weight_decay: multiplied by the learning rate.
        cautious: decay only weights that the update shrinks, too (arXiv:2510.12402).
        ns_steps: Newton-Schulz iterations.
        dtype: of their products.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        cautious: bool,
        ns_steps: int,
        dtype: torch.dtype,
    ) -> None:
        self.ns_steps, self.dtype = ns_steps, dtype
        super().__init__(
            parameters,
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "cautious": cautious},
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Update all matrices that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    mean = self._mean(matrix).lerp_(matrix.grad, 1 - group["momentum"])
                    update = matrix.grad.lerp(mean, group["momentum"])
                    self._apply(matrix, orthogonalize(update, self.ns_steps, self.dtype), group)

    def _mean(self, matrix: Parameter) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        return state["momentum_buffer"]

    def _apply(self, matrix: Parameter, update: Tensor, group: dict[str, Any]) -> None:
        lr, decay = group["lr"], group["weight_decay"]
        if group["cautious"] and decay:
            matrix.addcmul_(matrix, (update * matrix > 0).to(matrix.dtype), value=-lr * decay)
        else:
            matrix.mul_(1 - lr * decay)
        matrix.add_(update, alpha=-lr * 0.2 * max(matrix.shape) ** 0.5)
