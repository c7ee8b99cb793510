# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""From hidden states to the vocabulary: logits, log-probabilities, cross-entropy."""

# R rows (tokens), D model, V vocabulary

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from openllm.nn.kernels.rows import softmax_slope_

IGNORE = -100
"""Target of positions that are not predicted."""

CHUNK_LOGITS = 32 * 2**20
"""Logits computed at a time; those of a whole batch would dominate a step's memory."""

CHUNK_UNIT = 64
"""Matrix products with a multiple of this many rows are a few percent faster."""

CACHED_LOGITS = 2**20
"""Logits per softmax call, in float32, so that they stay in the CPU cache."""


class Head(NamedTuple):
    """The (V, D) output matrix, and the cap of the logits: cap tanh(logit / cap)."""

    weight: Tensor
    softcap: float | None = None


def logits(x: Tensor, head: Head) -> Tensor:
    """(..., D) -> (..., V) in float32."""
    scores = F.linear(x, head.weight.to(x.dtype)).float()
    return scores if head.softcap is None else head.softcap * torch.tanh(scores / head.softcap)


def _chunk_rows(weight_VD: Tensor, logits: int) -> int:
    return max(1, logits // weight_VD.shape[0] // CHUNK_UNIT) * CHUNK_UNIT


@torch.no_grad()
def token_logprobs(x_RD: Tensor, head: Head, targets_R: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each target in nats (float32), and whether it is the most likely token."""
    values, hits = [], []
    rows = _chunk_rows(head.weight, CHUNK_LOGITS // 2)  # half: these are float32
    for x, target in zip(x_RD.split(rows), targets_R.split(rows), strict=True):
        scores = logits(x, head)
        best, index = scores.max(1, keepdim=True)
        # in place: logsumexp() would make a second copy of the logits
        scores -= best
        picked = scores.gather(1, target[:, None])
        values.append((picked - scores.exp_().sum(1, keepdim=True).log())[:, 0])
        hits.append(index[:, 0] == target)
    return torch.cat(values), torch.cat(hits)


def sum_dtype(device: torch.device) -> torch.dtype:
    """Dtype for summing losses: float64, but float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


Slopes = Callable[[Tensor, slice], Tensor]
"""Overwrites some rows' scores with d loss / d scores; returns the loss of each row."""


class _LossSum(torch.autograd.Function):
    """Sum of token losses; the forward pass computes gradients chunk by chunk.

    As in arXiv:2410.10989, so that the logits of the whole batch never exist at once.
    """

    @staticmethod
    def forward(
        ctx: Any, x_RD: Tensor, weight_VD: Tensor, slopes_: Slopes, dtype: torch.dtype
    ) -> Tensor:
        weight = weight_VD.to(dtype)
        wide = sum_dtype(x_RD.device)
        total = torch.zeros((), dtype=wide, device=x_RD.device)
        grad_x, grad_weight = torch.empty_like(x_RD), torch.empty_like(weight_VD)
        vocab_size, rows = weight.shape[0], _chunk_rows(weight_VD, CHUNK_LOGITS)
        rows = min(rows, x_RD.shape[0])
        # reuse buffers for all chunks: allocating them anew costs more than the arithmetic
        buffer = torch.empty(rows, vocab_size, dtype=dtype, device=x_RD.device)
        part = grad_weight if weight.dtype == weight_VD.dtype else torch.empty_like(weight)
        for start in range(0, x_RD.shape[0], rows):
            piece = slice(start, start + rows)
            x = x_RD[piece].to(dtype)
            scores = torch.mm(x, weight.T, out=buffer[: len(x)])
            total += slopes_(scores, piece).sum(dtype=wide)
            grad_x[piece] = scores @ weight
            if start == 0:
                torch.mm(scores.T, x, out=part)
                grad_weight.copy_(part)
            elif part is grad_weight:
                grad_weight.addmm_(scores.T, x)
            else:
                torch.mm(scores.T, x, out=part)
                for sums, addend in zip(grad_weight.split(2048), part.split(2048), strict=True):
                    sums += addend
        ctx.grads = grad_x, grad_weight
        return total.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, None, None]:
        # in place: copying the output weight's gradient costs more than all of its arithmetic
        grad_x, grad_weight = ctx.grads
        ctx.grads = None
        return grad_x.mul_(slopes[0]), grad_weight.mul_(slopes[0]), None, None


def _capped(slopes_: Slopes, cap: float) -> Slopes:
    """The slopes of capped scores, carried back to the raw ones."""

    def outer_(scores: Tensor, piece: slice) -> Tensor:
        # in float32: 1 - tanh^2 of a rounded tanh would be coarse
        tanh = torch.tanh(scores.float() / cap)
        scores.copy_(cap * tanh)
        losses = slopes_(scores, piece)
        scores *= 1 - tanh.square()
        return losses

    return outer_


def _loss_sum(x_RD: Tensor, head: Head, slopes_: Slopes) -> Tensor:
    """Under autocast, matrix products run in its dtype; sums stay in float32."""
    device = x_RD.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else x_RD.dtype
    with torch.autocast(device, enabled=False):
        if head.softcap is not None:
            slopes_ = _capped(slopes_, head.softcap)
        return _LossSum.apply(x_RD, head.weight, slopes_, dtype)


def cross_entropy_sum(x_RD: Tensor, head: Head, targets_R: Tensor) -> Tensor:
    """Sum over rows of -log p(target) in nats; rows with target `IGNORE` count as zero."""

    def slopes_(scores: Tensor, piece: slice) -> Tensor:
        parts = zip(*(_cached(scores, t) for t in (scores, targets_R[piece])), strict=True)
        return torch.cat([softmax_slope_(part, targets) for part, targets in parts])

    return _loss_sum(x_RD, head, slopes_)


def distillation_sum(
    x_RD: Tensor,
    head: Head,
    targets_R: Tensor,
    teachers: Sequence[tuple[Tensor, Head]],
    share: float,
) -> Tensor:
    """Sum over rows of cross-entropy to a mixture of the target and the teachers' mean.

    As in arXiv:1503.02531 at temperature 1.

    Args:
        x_RD: hidden states.
        head: of the student.
        targets_R: rows with target `IGNORE` count as zero.
        teachers: hidden states (R, D') and head of each.
        share: weight of the teachers.
    """

    def slopes_(scores: Tensor, piece: slice) -> Tensor:
        states = [x[piece] for x, _ in teachers]
        parts = zip(*(_cached(scores, t) for t in (scores, targets_R[piece], *states)), strict=True)
        return torch.cat([slope_(*part) for part in parts])

    def slope_(scores: Tensor, targets: Tensor, *states: Tensor) -> Tensor:
        kept = targets >= 0
        wanted = torch.zeros_like(scores, dtype=torch.float32)
        for x, (_, other) in zip(states, teachers, strict=True):
            wanted += logits(x, other).softmax(1)
        wanted *= share / len(teachers)
        rest = torch.full_like(wanted[:, :1], 1 - share)
        wanted.scatter_add_(1, targets.clamp_min(0)[:, None], rest)
        logprobs = scores.float().log_softmax(1)
        losses = -(wanted * logprobs).sum(1)
        scores.copy_((logprobs.exp_() - wanted) * kept[:, None])
        return torch.where(kept, losses, 0.0)

    return _loss_sum(x_RD, head, slopes_)


def _cached(scores: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
    """Split into blocks of rows whose scores stay in the CPU cache."""
    return rows.split(max(1, CACHED_LOGITS // scores.shape[1]))
