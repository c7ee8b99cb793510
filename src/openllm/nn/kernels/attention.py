# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Causal attention within each document in bfloat16 (attention.cpp)."""

# R packed tokens of all documents, N query heads, K kv heads, H head dim

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from openllm.nn.context import AttentionContext
from openllm.nn.kernels.library import has_dot_product
from openllm.nn.kernels.operation import call, operation, usable

MAX_HEAD_DIM = 256


class ScoreRule(NamedTuple):
    """How scores are made from products of queries and keys.

    `softcap`: scores become cap tanh(score / cap). `window`: a token sees this many tokens, itself
    included.
    """

    scale: float
    softcap: float | None = None
    window: int | None = None


def attend(q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, rule: ScoreRule) -> Tensor:
    """(B, N, T, H): attend causally from the last T of S tokens; the reference of all attention."""
    time = q_BNTH.shape[-2]
    if rule.window is not None:
        seen = time + rule.window - 1
        k_BKSH, v_BKSH = k_BKSH[..., -seen:, :], v_BKSH[..., -seen:, :]
    span = k_BKSH.shape[-2]
    mask, before = None, span - time
    windowed = rule.window is not None and rule.window < span
    if time > 1 and (before or windowed or rule.softcap is not None):
        mask = torch.ones(time, span, dtype=torch.bool, device=q_BNTH.device).tril(before)
        if windowed:
            mask = mask.triu(before - rule.window + 1)
    if rule.softcap is not None:
        return _attend_capped(q_BNTH, k_BKSH, v_BKSH, mask, rule)
    return F.scaled_dot_product_attention(
        q_BNTH,
        k_BKSH,
        v_BKSH,
        attn_mask=mask,
        is_causal=time > 1 and mask is None,
        scale=rule.scale,
        enable_gqa=q_BNTH.shape[1] != k_BKSH.shape[1],
    )


def _attend_capped(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None, rule: ScoreRule
) -> Tensor:
    groups = q_BNTH.shape[1] // k_BKSH.shape[1]
    k_BNSH, v_BNSH = (x.repeat_interleave(groups, dim=1) for x in (k_BKSH, v_BKSH))
    scores = (q_BNTH @ k_BNSH.transpose(-1, -2)) * rule.scale
    scores = rule.softcap * torch.tanh(scores / rule.softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.float().softmax(-1).to(q_BNTH.dtype) @ v_BNSH


def attention_reference(
    q_RNH: Tensor,
    k_RKH: Tensor,
    v_RKH: Tensor,
    context: AttentionContext,
    rule: ScoreRule | None = None,
) -> Tensor:
    """(R, N, H): each token attends to the tokens of its document up to itself.

    Documents of equal length form one batch; else a loop over documents, which on a CPU is
    faster than masking the row. The default rule scales by H^-0.5.
    """
    dtype = q_RNH.dtype
    rule = rule or ScoreRule(q_RNH.shape[-1] ** -0.5)
    if q_RNH.device.type == "cpu" and dtype == torch.bfloat16:
        # bfloat16 is slower here, and its backward pass keeps megabytes of compiled code for
        # every document length it has seen
        q_RNH, k_RKH, v_RKH = q_RNH.float(), k_RKH.float(), v_RKH.float()
    lengths = [end - start for start, end in pairwise(context.cu_seqlens)]
    if len(set(lengths)) == 1:
        shape = (len(lengths), lengths[0])
        parts = [x.unflatten(0, shape).transpose(1, 2) for x in (q_RNH, k_RKH, v_RKH)]
        return attend(*parts, rule).transpose(1, 2).flatten(0, 1).to(dtype)
    # split(), not slices: its gradient is one concatenation instead of a sum of full tensors
    rows = zip(*(x.split(lengths) for x in (q_RNH, k_RKH, v_RKH)), strict=True)
    documents = ([x.transpose(0, 1)[None] for x in parts] for parts in rows)
    return torch.cat([attend(*parts, rule)[0].transpose(0, 1) for parts in documents]).to(dtype)


def has_kernel(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the kernel supports these: bfloat16, on a CPU with bfloat16 products."""
    dim = q.shape[-1]
    return (
        q.dtype == torch.bfloat16
        and dim % 32 == 0
        and dim <= MAX_HEAD_DIM
        and usable(q, k, v)
        and has_dot_product()
    )


def attention(
    q_RNH: Tensor,
    k_RKH: Tensor,
    v_RKH: Tensor,
    context: AttentionContext,
    rule: ScoreRule | None = None,
) -> Tensor:
    """Same as `attention_reference`."""
    if has_kernel(q_RNH, k_RKH, v_RKH) and _is_plain(rule, q_RNH.shape[-1], context):
        return _attention(q_RNH, k_RKH, v_RKH, context.borders)[0]
    return attention_reference(q_RNH, k_RKH, v_RKH, context, rule)


def _is_plain(rule: ScoreRule | None, head_dim: int, context: AttentionContext) -> bool:
    """Whether the kernel, which knows neither caps nor windows, gives what the rule asks for."""
    if rule is None:
        return True
    if rule.softcap is not None or rule.scale != head_dim**-0.5:
        return False
    return rule.window is None or rule.window >= context.longest


def _sizes(q: Tensor, k: Tensor, borders: Tensor) -> tuple[int, int, int, int, float]:
    return len(borders) - 1, q.shape[1], k.shape[1], q.shape[2], q.shape[2] ** -0.5


def _fake(q: Tensor, k: Tensor, v: Tensor, borders: Tensor) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    return out, q.new_empty(q.shape[:2], dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, borders = inputs
    ctx.save_for_backward(q, k, v, *output, borders)
    ctx.mark_non_differentiable(output[1])


def _slope(ctx: Any, slope: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    return (*_attention_backward(slope, *ctx.saved_tensors), None)


@operation(fake=_fake, setup_context=_keep, backward=_slope)
def _attention(q: Tensor, k: Tensor, v: Tensor, borders: Tensor) -> tuple[Tensor, Tensor]:
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out = torch.empty_like(q)
    lse = q.new_empty(q.shape[:2], dtype=torch.float32)
    call("attention_b", q, k, v, borders, *_sizes(q, k, borders), out, lse)
    return out, lse


def _fake_backward(
    slope: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, borders: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    form = torch.contiguous_format
    return (
        torch.empty_like(q, memory_format=form),
        torch.empty_like(k, memory_format=form),
        torch.empty_like(v, memory_format=form),
    )


@operation(fake=_fake_backward)
def _attention_backward(
    slope: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, borders: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    slope, q, k, v = (x.contiguous() for x in (slope, q, k, v))
    grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    sizes = _sizes(q, k, borders)
    call("attention_backward_b", slope, q, k, v, out, lse, borders, *sizes, *grads)
    return grads
