# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The Muon optimizer for matrices (https://kellerjordan.github.io/posts/muon)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from openllm.nn.kernels.orthogonalize import orthogonalize_


class Muon(Optimizer):
    """Orthogonalised Nesterov momentum, scaled to the typical magnitude of AdamW updates.

    Updates are scaled by 0.2 sqrt(max(shape)) (arXiv:2502.16982), so that learning rates and
    weight decay carry over from AdamW.

    Args:
        parameters: matrices.
        lr: learning rate.
        momentum: decay of the running mean of gradients.
        weight_decay: multiplied by the learning rate.
        cautious: decay only weights that the update also shrinks (arXiv:2510.12402).
        ns_steps: Newton-Schulz iterations.
        dtype: of the matrix products.
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
            by_shape: dict[tuple[int, ...], list[Parameter]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(tuple(matrix.shape), []).append(matrix)
            for matrices in by_shape.values():
                updates = self._updates(matrices, group["momentum"])
                orthogonalize_(updates, self.ns_steps, self.dtype)
                for matrix, update in zip(matrices, updates, strict=True):
                    self._apply(_wide(matrix), update, group)

    def _updates(self, matrices: Sequence[Parameter], momentum: float) -> Tensor:
        """Nesterov momentum of matrices of one shape, transposed if tall."""
        stack = _wide(matrices[0]).new_empty(len(matrices), *_wide(matrices[0]).shape)
        for matrix, update in zip(matrices, stack, strict=True):
            state, gradient = self.state[matrix], matrix.grad
            assert gradient is not None
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(matrix)
            mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
            torch.lerp(_wide(gradient), _wide(mean), momentum, out=update)
        return stack

    def _apply(self, matrix: Tensor, update: Tensor, group: dict[str, Any]) -> None:
        lr, decay = group["lr"], group["weight_decay"]
        if group["cautious"] and decay:
            matrix.addcmul_(matrix, (update * matrix > 0).to(matrix.dtype), value=-lr * decay)
        else:
            matrix.mul_(1 - lr * decay)
        matrix.add_(update, alpha=-lr * 0.2 * max(matrix.shape) ** 0.5)


def _wide(matrix: Tensor) -> Tensor:
    """Transpose a matrix with more rows than columns."""
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
