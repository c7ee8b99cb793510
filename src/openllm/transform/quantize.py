# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Quantise the matrices of a model: which, to how many bits, with which scales."""

# N rows, K columns, G groups of a row, C columns of a group

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from openllm.nn.model import Transformer
from openllm.nn.quantized import EMBEDDING, HEAD, LIMITS, QuantizedTensor, Scheme, round_to

GROUPS = (128, 64, 32)
"""Columns that may share a scale."""

SHRINKS = tuple(1 - 0.02 * step for step in range(20))
"""Scales that are tried at 4 bits, as shares of the one that reaches the largest weight."""

SMALLEST = 2.0**-17
"""Below it, float16 rounds a scale by more than a half percent: half a step of 127."""

INPUT_STEPS = 127.0
"""Of a token's largest activation, as in vLLM."""

KINDS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""Kinds of units in a layer; the matrices of a unit read the same input.

They have the same scheme, because some architectures store and some engines run them as one matrix.
"""

ENDS = {"embed": EMBEDDING, "head": HEAD}
"""Units outside of the layers; a tied embedding is also the head."""


def units(names: Iterable[str]) -> dict[str, list[str]]:
    """The matrices of a model that can be quantised: unit, such as `3.up`, -> their names.

    Args:
        names: of the tensors of a model.
    """
    kinds = {module: kind for kind, modules in KINDS.items() for module in modules}
    ends = {name: unit for unit, name in ENDS.items()}
    found: dict[str, list[str]] = {}
    for name in names:
        match = re.fullmatch(r"layers\.(\d+)\.(.+)\.weight", name)
        if name in ends:
            found[ends[name]] = [name]
        elif match is not None and match[2] in kinds:
            found.setdefault(f"{match[1]}.{kinds[match[2]]}", []).append(name)
    return found


def fitting(scheme: Scheme, columns: int) -> Scheme | None:
    """The scheme with the largest possible group for rows of this length; none: there is none."""
    if scheme.group is None or columns % scheme.group == 0:
        return scheme
    fits = [group for group in GROUPS if group < scheme.group and columns % group == 0]
    return scheme._replace(group=fits[0]) if fits else None


def stored_bytes(shape: tuple[int, ...], scheme: Scheme) -> int:
    """Bytes of a matrix (N, K) with float16 scales."""
    groups = 1 if scheme.group is None else shape[1] // scheme.group
    return shape[0] * (shape[1] * scheme.bits // 8 + 2 * groups)


def quantize(weight_NK: Tensor, scheme: Scheme) -> QuantizedTensor:
    """Quantise a matrix so that its squared error is small, without data."""
    return round_to(weight_NK, scales(weight_NK, scheme), scheme.bits)


def largest_scales(weight_NK: Tensor, scheme: Scheme) -> Tensor:
    """The scale of each group that just reaches its largest weight, (N, G).

    In float16, or else in float32, as `narrowed` says. At 4 bits that weight becomes -8, which has
    no counterpart, so the scale may be negative.
    """
    weight_NGC = _grouped(weight_NK, scheme)
    if scheme.bits == 8:
        return narrowed(weight_NGC.abs().amax(-1) / LIMITS[8][1])
    place = weight_NGC.abs().argmax(-1, keepdim=True)
    return narrowed(weight_NGC.gather(-1, place)[..., 0] / LIMITS[4][0])


def _grouped(weight_NK: Tensor, scheme: Scheme) -> Tensor:
    group = weight_NK.shape[1] if scheme.group is None else scheme.group
    return weight_NK.float().unflatten(1, (-1, group))


def scales(weight_NK: Tensor, scheme: Scheme) -> Tensor:
    """The scale of each group with the least squared error, (N, G).

    At 8 bits it reaches the largest weight. At 4 bits both signs and smaller ones are tried.
    """
    if scheme.bits == 8:
        return largest_scales(weight_NK, scheme)
    weight_NGC = _grouped(weight_NK, scheme)
    whole_NG = largest_scales(weight_NK, scheme).float()
    best_NG = torch.full_like(whole_NG, torch.inf)
    chosen_NG = narrowed(whole_NG)
    for sign in (1, -1):
        for share in SHRINKS:
            tried_NG = narrowed(whole_NG * (sign * share))
            error_NG = _error(weight_NGC, tried_NG, scheme.bits)
            chosen_NG = torch.where(error_NG < best_NG, tried_NG, chosen_NG)
            best_NG = torch.minimum(error_NG, best_NG)
    return chosen_NG


def _error(weight_NGC: Tensor, scale_NG: Tensor, bits: int) -> Tensor:
    steps = scale_NG.float()[..., None]
    whole = torch.where(steps == 0, 0.0, weight_NGC / steps).round_().clamp_(*LIMITS[bits])
    return (whole * steps - weight_NGC).square().sum(-1)


def narrowed(scale: Tensor) -> Tensor:
    """In float16, which GGUF and the fast kernels take, unless the largest is out of its range."""
    largest = float(scale.abs().max()) if scale.numel() else 0.0
    fits = largest == 0 or SMALLEST <= largest <= torch.finfo(torch.float16).max
    return scale.half() if fits else scale.float()


def round_inputs(model: Transformer) -> None:
    """Let linear layers see their inputs as 8-bit integers, each token's with a scale of its own.

    What engines do with weights of 8 bits, in ordinary arithmetic. A tied head keeps its inputs.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            module.register_forward_pre_hook(lambda _, args: (_rounded(args[0]), *args[1:]))
    if model.lm_head is not None:  # which is applied outside of the model
        model.norm.register_forward_hook(lambda module, args, result: _rounded(result))


def _rounded(x: Tensor) -> Tensor:
    steps = x.abs().amax(-1, keepdim=True) / INPUT_STEPS
    return torch.where(steps == 0, x, (x / steps).round().clamp(-128, 127) * steps)
