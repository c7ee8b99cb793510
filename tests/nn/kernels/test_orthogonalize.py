# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import pytest
import torch
from torch import Tensor

from openllm.nn.kernels import orthogonalize as module
from openllm.nn.kernels.library import has_dot_product
from openllm.nn.kernels.orthogonalize import orthogonalize_, orthogonalize_reference_

SHAPES = [(64, 64), (16, 48), (32, 64), (96, 224), (160, 160), (256, 256), (96, 1024)]


def orthogonalized(
    matrices: list[Tensor], steps: int, dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    stack = torch.stack(matrices)
    orthogonalize_(stack, steps, dtype)
    return stack


def with_spectrum(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix with singular values from 0.05 to 3, and its singular vectors."""
    random = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    left, values, right = torch.linalg.svd(random, full_matrices=False)
    return left * torch.linspace(0.05, 3, len(values)) @ right, left, right


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_singular_values_become_about_one(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrix, left, right = with_spectrum(*shape)
    found = orthogonalized([matrix], 5, dtype)[0]
    spread = torch.linalg.svdvals(found)
    assert spread.min() > 0.6 and spread.max() < 1.3
    # same singular vectors: U^T (U S V^T) V is diagonal
    inner = left.T @ found @ right.T
    assert (inner - inner.diagonal().diag()).abs().max() < (1e-4 if dtype == torch.float32 else 0.1)


@pytest.mark.skipif(not has_dot_product(), reason="no compiler, or no bfloat16 here")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 5])
def test_the_kernel_is_the_reference(shape: tuple[int, int], steps: int) -> None:
    matrices = [with_spectrum(*shape, seed)[0] for seed in range(5)]
    exact = torch.stack(matrices)
    orthogonalize_reference_(exact, steps, torch.float32)
    for ours, theirs in zip(orthogonalized(matrices, steps), exact, strict=True):
        # rounding grows with the iterations, in torch's bfloat16 as in ours
        assert (ours - theirs).norm() / theirs.norm() < 0.01 * steps


@pytest.mark.skipif(not has_dot_product(), reason="no compiler, or no bfloat16 here")
def test_same_bits_with_any_number_of_threads() -> None:
    matrices = [with_spectrum(64, 96, seed)[0] for seed in range(5)]
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(orthogonalized(matrices, 5))
    finally:
        torch.set_num_threads(before)
    assert found[0].equal(found[1])


def test_odd_shapes_take_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("the kernel was called")

    monkeypatch.setattr(module, "_orthogonalize", refuse)
    matrix = torch.randn(30, 48, generator=torch.Generator().manual_seed(0))
    assert orthogonalized([matrix], 5).isfinite().all()
    assert orthogonalized([matrix[:16]], 5, torch.float32).isfinite().all()


def test_zero_and_nan() -> None:
    zero, bad = torch.zeros(32, 64), torch.ones(32, 64)
    bad[3, 4] = float("nan")
    found = orthogonalized([zero, bad], 5)
    assert (found[0] == 0).all()
    assert found[1].isnan().any()
