# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Orthogonalisation by Newton-Schulz iterations (orthogonalize.cpp), for the Muon optimizer."""

# M matrices, R rows, C columns

import torch
from torch import Tensor

from openllm.nn.kernels.library import has_dot_product
from openllm.nn.kernels.operation import call, operation, usable

A, B, C = 3.4445, -4.7750, 2.0315
"""Of a x + b x^3 + c x^5, which drives singular values towards 1 despite rounding.

Coefficients that converge faster (arXiv:2505.16932) amplify bfloat16 errors (docs/LOG.md).
"""

UNIT = 32
"""The kernel requires rows and columns that are multiples of this."""

LARGEST = 512
"""Largest number of rows for which the kernel is faster than torch."""


def orthogonalize_reference_(stack_MRC: Tensor, steps: int, dtype: torch.dtype) -> None:
    """Replace each matrix by approximately U V^T of its SVD.

    Args:
        stack_MRC: float32, with no more rows than columns.
        steps: 5 bring singular values of at least 0.003 of the norm to between 0.6 and 1.21.
        dtype: of the products; bfloat16 is enough.
    """
    for matrix in stack_MRC:
        x = matrix.to(dtype)
        x = x / (x.norm() + 1e-7)
        for _ in range(steps):
            gram = x @ x.T
            polynomial = (gram @ gram).mul_(C).add_(gram, alpha=B)
            polynomial.diagonal().add_(A)
            x = polynomial @ x  # not addmm(), which takes 1.5 times as long on a CPU
        matrix.copy_(x)


def orthogonalize_(stack_MRC: Tensor, steps: int, dtype: torch.dtype) -> None:
    """Same as `orthogonalize_reference_`."""
    rows, columns = stack_MRC.shape[1:]
    fits = rows % UNIT == 0 and columns % UNIT == 0 and rows <= LARGEST
    if dtype == torch.bfloat16 and fits and usable(stack_MRC) and has_dot_product():
        _orthogonalize(stack_MRC, steps)
    else:
        orthogonalize_reference_(stack_MRC, steps, dtype)


def _fake(matrices: Tensor, steps: int) -> None:
    return None


@operation(fake=_fake, mutates=["matrices"])
def _orthogonalize(matrices: Tensor, steps: int) -> None:
    call("orthogonalize_b", matrices, *matrices.shape, steps)
