# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Row-wise operations (rows.cpp): RMS norm, rotary embedding, SwiGLU, softmax gradient.

Each has a `*_reference` in plain torch; the public function uses the kernel where it can.
"""

# R rows, D model or head dim, N heads, F hidden, V vocabulary

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from openllm.nn.kernels.operation import SIZES, call, operation, usable


def rms_norm_reference(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """x / rms(x) * gain over the last axis (arXiv:1910.07467), in x's dtype."""
    dtype = torch.promote_types(x.dtype, gain.dtype)
    return F.rms_norm(x.to(dtype), (x.shape[-1],), gain.to(dtype), eps).to(x.dtype)


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """Same as `rms_norm_reference`, but bf16 under bf16 autocast, as the next product needs."""
    if {x.dtype, gain.dtype} != {torch.float32} or not usable(x, gain):
        return rms_norm_reference(x, gain, eps)
    half = torch.is_autocast_enabled("cpu")
    return _rms_norm(x, gain, eps, torch.get_autocast_dtype("cpu") if half else x.dtype)[0]


def _fake_norm(x: Tensor, gain: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=dtype), x.new_empty(x.shape[:-1])


def _keep_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], inputs[1], output[1])
    ctx.mark_non_differentiable(output[1])


def _slope_norm(ctx: Any, slope: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    return (*_rms_norm_backward(slope, *ctx.saved_tensors), None, None)


@operation(fake=_fake_norm, setup_context=_keep_norm, backward=_slope_norm)
def _rms_norm(x: Tensor, gain: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    dim = x.shape[-1]
    out = torch.empty_like(x, dtype=dtype)
    inverse = x.new_empty(x.shape[:-1])
    rows = x.numel() // dim
    call(f"rms_norm_f{SIZES[dtype]}", x, gain, out, inverse, rows, dim, eps)
    return out, inverse


def _fake_norm_backward(
    slope: Tensor, x: Tensor, gain: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(gain)


@operation(fake=_fake_norm_backward)
def _rms_norm_backward(
    slope: Tensor, x: Tensor, gain: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    slope, x = slope.contiguous(), x.contiguous()
    dim = x.shape[-1]
    grad_x, grad_gain = torch.empty_like(x), torch.empty_like(gain)
    name = f"rms_norm_backward_f{SIZES[slope.dtype]}"
    call(name, slope, x, gain, inverse, grad_x, grad_gain, x.numel() // dim, dim)
    return grad_x, grad_gain


def norm_rotate_reference(
    x_RND: Tensor, gain: Tensor | None, eps: float, cosines: Tensor, sines: Tensor
) -> Tensor:
    """RMS norm of each head, if there is a gain, then rotation of the pairs (i, i + D/2)."""
    x = x_RND.to(torch.promote_types(x_RND.dtype, torch.float32))
    if gain is not None:
        x = rms_norm_reference(x, gain.to(x.dtype), eps)
    left, right = x.chunk(2, dim=-1)
    cos, sin = cosines[:, None], sines[:, None]
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1).to(x_RND.dtype)


def norm_rotate(
    x_RND: Tensor, gain: Tensor | None, eps: float, cosines: Tensor, sines: Tensor
) -> Tensor:
    """Same as `norm_rotate_reference`: (R, N, D), float32 angles (R, D/2), result in x's dtype."""
    if not usable(x_RND) or any(
        part is not None and part.dtype != torch.float32 for part in (gain, cosines, sines)
    ):
        return norm_rotate_reference(x_RND, gain, eps, cosines, sines)
    return _norm_rotate(x_RND, gain, eps, cosines, sines)


def _fake_rotate(
    x: Tensor, gain: Tensor | None, eps: float, cosines: Tensor, sines: Tensor
) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _keep_rotate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, gain, ctx.eps, cosines, sines = inputs
    ctx.save_for_backward(x, gain, cosines, sines)


def _slope_rotate(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
    x, gain, cosines, sines = ctx.saved_tensors
    grad_x, grad_gain = _norm_rotate_backward(slope, x, gain, ctx.eps, cosines, sines)
    return grad_x, None if gain is None else grad_gain, None, None, None


@operation(fake=_fake_rotate, setup_context=_keep_rotate, backward=_slope_rotate)
def _norm_rotate(
    x: Tensor, gain: Tensor | None, eps: float, cosines: Tensor, sines: Tensor
) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    call(f"norm_rotate_{SIZES[x.dtype]}", x, gain, cosines, sines, out, *x.shape, eps)
    return out


def _fake_rotate_backward(
    slope: Tensor, x: Tensor, gain: Tensor | None, eps: float, cosines: Tensor, sines: Tensor
) -> tuple[Tensor, Tensor]:
    grad_gain = x.new_empty(0 if gain is None else gain.shape[0], dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.contiguous_format), grad_gain


@operation(fake=_fake_rotate_backward)
def _norm_rotate_backward(
    slope: Tensor, x: Tensor, gain: Tensor | None, eps: float, cosines: Tensor, sines: Tensor
) -> tuple[Tensor, Tensor]:
    slope, x = slope.contiguous(), x.contiguous()
    grad_x = torch.empty_like(x)
    grad_gain = x.new_empty(0 if gain is None else gain.shape[0], dtype=torch.float32)
    name = f"norm_rotate_backward_{SIZES[x.dtype]}"
    call(name, slope, x, gain, cosines, sines, grad_x, grad_gain, *x.shape, eps)
    return grad_x, grad_gain


def swiglu_reference(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (arXiv:2002.05202)."""
    return F.silu(gate) * up


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Same as `swiglu_reference`, without keeping silu(gate) for the backward pass."""
    return _swiglu(gate, up) if usable(gate, up) else swiglu_reference(gate, up)


def _fake_swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return torch.empty_like(gate, memory_format=torch.contiguous_format)


def _keep_swiglu(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _slope_swiglu(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
    return _swiglu_backward(slope, *ctx.saved_tensors)


@operation(fake=_fake_swiglu, setup_context=_keep_swiglu, backward=_slope_swiglu)
def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    call(f"swiglu_{SIZES[gate.dtype]}", gate, up, out, gate.numel())
    return out


def _fake_swiglu_backward(slope: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    form = torch.contiguous_format
    return torch.empty_like(gate, memory_format=form), torch.empty_like(up, memory_format=form)


@operation(fake=_fake_swiglu_backward)
def _swiglu_backward(slope: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    slope, gate, up = slope.contiguous(), gate.contiguous(), up.contiguous()
    grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
    name = f"swiglu_backward_{SIZES[gate.dtype]}"
    call(name, slope, gate, up, grad_gate, grad_up, gate.numel())
    return grad_gate, grad_up


def softmax_slope_reference_(scores_RV: Tensor, targets_R: Tensor) -> Tensor:
    """Overwrite scores with d loss / d scores; return the loss of each row, float32.

    Both are zero for negative targets.
    """
    kept = targets_R >= 0
    index = targets_R.clamp_min(0)[:, None]
    # in place from here on: logsumexp() would make a second copy of the scores
    probs = scores_RV.float()
    probs -= probs.amax(1, keepdim=True)
    picked = probs.gather(1, index)
    norm = probs.exp_().sum(1, keepdim=True)
    losses = (norm.log() - picked)[:, 0]
    probs.mul_(kept[:, None] / norm)
    probs.scatter_add_(1, index, -kept[:, None].to(probs.dtype))
    scores_RV.copy_(probs)
    return torch.where(kept, losses, 0.0)


def softmax_slope_(scores_RV: Tensor, targets_R: Tensor) -> Tensor:
    """Same as `softmax_slope_reference_`."""
    if usable(scores_RV) and targets_R.dtype == torch.int64:
        return _softmax_slope(scores_RV, targets_R)
    return softmax_slope_reference_(scores_RV, targets_R)


def _fake_slope(scores: Tensor, targets: Tensor) -> Tensor:
    return scores.new_empty(len(scores), dtype=torch.float32)


@operation(fake=_fake_slope, mutates=["scores"])
def _softmax_slope(scores: Tensor, targets: Tensor) -> Tensor:
    losses = scores.new_empty(len(scores), dtype=torch.float32)
    call(f"softmax_slope_{SIZES[scores.dtype]}", scores, targets, *scores.shape, losses)
    return losses
