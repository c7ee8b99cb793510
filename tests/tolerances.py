# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""How far two ways of computing the same thing may differ. What is not here must agree bit by bit.

The difference is the largest one, relative to the largest value of the tensor.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 3e-2,
}


def difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value of `expected`."""
    assert actual.shape == expected.shape
    gap = (actual.double() - expected.double()).abs().max().item()
    return gap / max(expected.double().abs().max().item(), 1e-30)


def assert_close(
    actual: Tensor, expected: Tensor, dtype: torch.dtype = torch.float32, what: str = "values"
) -> None:
    """Fail if two tensors differ by more than arithmetic in `dtype` explains."""
    found = difference(actual, expected)
    assert found <= TOLERANCE[dtype], f"{what} differ by {found:.2e} (allowed {TOLERANCE[dtype]})"


def assert_gradients_close(
    actual: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Like `assert_close` for a model's gradients as one tensor: some are zero except for noise."""
    assert actual.keys() == expected.keys()
    flat = [torch.cat([part[name].flatten() for name in expected]) for part in (actual, expected)]
    assert_close(*flat, dtype, "gradients")
