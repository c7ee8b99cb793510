# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Each kernel against the plain torch code that it must equal, values and gradients."""

from collections.abc import Callable

import pytest
import torch
from tests.tolerances import assert_close
from torch import Tensor

from openllm.nn.kernels import rows
from openllm.nn.kernels.library import library
from openllm.nn.kernels.rows import (
    norm_rotate,
    norm_rotate_reference,
    rms_norm,
    rms_norm_reference,
    softmax_slope_,
    softmax_slope_reference_,
    swiglu,
    swiglu_reference,
)

pytestmark = pytest.mark.skipif(library() is None, reason="no kernels on this machine")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()


def compare(
    ours: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    inputs: list[Tensor],
    dtype: torch.dtype,
) -> None:
    """Equal values, and equal gradients of all inputs, those of the reference in float32."""
    wide = [x.detach().float().requires_grad_() for x in inputs]
    actual, expected = ours(*inputs), reference(*wide)
    assert_close(actual, expected, dtype, "values")
    slope = normal(*expected.shape, seed=9).detach()
    for number, (ours_grad, theirs) in enumerate(
        zip(
            torch.autograd.grad(actual, inputs, slope.to(actual.dtype)),
            torch.autograd.grad(expected, wide, slope),
            strict=True,
        )
    ):
        assert_close(ours_grad, theirs, dtype, f"gradient {number}")


@pytest.mark.parametrize("shape", [(1, 2), (3, 7), (2, 5, 64), (33, 257)])
def test_rms_norm(shape: tuple[int, ...], threads: int) -> None:
    gain = normal(shape[-1], seed=1)
    compare(
        lambda x, g: rms_norm(x, g, 1e-6),
        lambda x, g: rms_norm_reference(x, g, 1e-6),
        [normal(*shape), gain],
        torch.float32,
    )


def test_rms_norm_gives_half_precision_under_autocast() -> None:
    def half(x: Tensor, gain: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return rms_norm(x, gain, 1e-6)

    inputs = [normal(33, 96), normal(96, seed=1)]
    assert half(*inputs).dtype == torch.bfloat16
    compare(half, lambda x, g: rms_norm_reference(x, g, 1e-6), inputs, torch.bfloat16)


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1, 2), (5, 3, 10), (17, 2, 64)])
@pytest.mark.parametrize("gained", [True, False])
def test_norm_rotate(
    dtype: torch.dtype, shape: tuple[int, int, int], gained: bool, threads: int
) -> None:
    angles = 6 * normal(shape[0], shape[2] // 2, seed=2).detach()
    inputs = [normal(*shape, dtype=dtype)]
    if gained:
        inputs.append(normal(shape[2], seed=1))

    def ours(x: Tensor, gain: Tensor | None = None) -> Tensor:
        return norm_rotate(x, gain, 1e-6, angles.cos(), angles.sin())

    def reference(x: Tensor, gain: Tensor | None = None) -> Tensor:
        return norm_rotate_reference(x, gain, 1e-6, angles.cos(), angles.sin())

    compare(ours, reference, inputs, dtype)


@DTYPES
@pytest.mark.parametrize("shape", [(1,), (3, 7), (2, 5, 1536)])
def test_swiglu(dtype: torch.dtype, shape: tuple[int, ...], threads: int) -> None:
    inputs = [normal(*shape, dtype=dtype), normal(*shape, dtype=dtype, seed=1)]
    compare(swiglu, swiglu_reference, inputs, dtype)


def test_swiglu_of_extreme_gates() -> None:
    gate = torch.tensor([-1e30, -200.0, -88.0, 0.0, 88.0, 200.0, 1e30])
    up = torch.full_like(gate, 2.0)
    assert swiglu(gate, up).allclose(swiglu_reference(gate, up), atol=1e-6)


@DTYPES
@pytest.mark.parametrize("vocab", [1, 31, 640, 32_000])
def test_softmax_slope(dtype: torch.dtype, vocab: int, threads: int) -> None:
    scores = (4 * normal(9, vocab).detach()).to(dtype)
    targets = torch.arange(9) * 7919 % vocab
    targets[3] = -100
    ours, theirs = scores.clone(), scores.float()
    losses, expected = softmax_slope_(ours, targets), softmax_slope_reference_(theirs, targets)
    assert_close(losses, expected, torch.float32, "losses")
    assert_close(ours, theirs, dtype, "slopes")
    assert (ours[3] == 0).all() and losses[3] == 0


@DTYPES
def test_softmax_slope_of_extreme_scores(dtype: torch.dtype) -> None:
    scores = torch.zeros(2, 40, dtype=dtype)
    scores[0, 5] = 3e38
    scores[1] = -3e38
    losses = softmax_slope_(scores, torch.tensor([5, 0]))
    assert losses[0] == 0
    assert losses[1].item() == pytest.approx(torch.tensor(40.0).log().item(), rel=1e-5)
    assert scores.isfinite().all()


@DTYPES
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(dtype: torch.dtype, bad: float) -> None:
    """A run that diverges must be noticed, whichever code runs."""
    for place in range(0, 67, 11):
        scores = torch.zeros(1, 67, dtype=dtype)
        scores[0, place] = bad
        assert not softmax_slope_(scores, torch.tensor([1])).isfinite().all()
        x = torch.ones(1, 67, dtype=dtype)
        x[0, place] = bad
        assert not swiglu(x, torch.ones_like(x)).isfinite().all()
        if dtype == torch.float32:
            assert rms_norm(x, torch.ones(67), 1e-6).isnan().any()


def test_same_bits_each_time() -> None:
    x, gain = normal(501, 64), normal(64, seed=1)
    first, second = (
        torch.autograd.grad(rms_norm(x, gain, 1e-6).square().sum(), gain)[0] for _ in range(2)
    )
    assert first.equal(second)


def test_strided_inputs() -> None:
    wide = normal(6, 40).detach()
    half = wide[:, ::2]
    assert swiglu(half, half).equal(swiglu(half.contiguous(), half.contiguous()))
    assert rms_norm(half, torch.ones(20), 1e-6).equal(
        rms_norm(half.contiguous(), torch.ones(20), 1e-6)
    )


def test_other_dtypes_take_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a kernel was called")

    monkeypatch.setattr(rows, "call", refuse)
    x = torch.ones(2, 4, dtype=torch.float64)
    assert swiglu(x, x).dtype == torch.float64
    with pytest.raises(AssertionError, match="a kernel"):
        swiglu(x.float(), x.float())
    angles = torch.ones(2, 2)
    assert norm_rotate(x.bfloat16()[:, None], torch.ones(4).bfloat16(), 1e-6, angles, angles).sum()
    with pytest.raises(RuntimeError, match="int64"):  # of the reference, not of a kernel
        softmax_slope_(x.float(), torch.ones(2, dtype=torch.int16))
