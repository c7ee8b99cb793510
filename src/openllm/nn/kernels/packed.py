# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Weight matrices packed for products with a few rows (packed.h), in 32, 16, 8 or 4 bits.

A row's result never depends on the rows beside it, nor on the number of threads.
"""

# N outputs, K inputs, G groups of inputs, R rows, P panels of 16 outputs, S steps of 32 inputs

import ctypes
import math
import mmap
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from openllm.core.errors import EngineError
from openllm.nn.kernels.library import library
from openllm.nn.kernels.operation import call

Kind = Literal["fp32", "bf16", "int8", "int4"]
KINDS: tuple[Kind, ...] = ("fp32", "bf16", "int8", "int4")
LANES, STEP = 16, 32
GROUPS = (32, 64, 128)
"""Allowed numbers of inputs that share a scale; all inputs of an output may share one, too."""
BITS: dict[Kind, int] = {"int8": 8, "int4": 4}
TINY = 1e-30
"""Inputs are zero below it where they are rounded to 8 bits: 127 / x must be finite."""
LARGE = 4 * 2**20
"""Bytes from which on large memory pages pay."""


class Layout(ctypes.Structure):
    """`Matrix` of packed.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("kind", ctypes.c_int64),
        ("group", ctypes.c_int64),
        ("factor", ctypes.c_float),
    ]


class PackedMatrix:
    """A (N, K) weight in one of the layouts of packed.h; made by `pack` and `pack_quantized`.

    Scales are kept in float16, times a power of two of the matrix.
    """

    def __init__(
        self,
        kind: Kind,
        shape: tuple[int, int],
        data: Tensor,
        scales_PGL: Tensor | None = None,
        group: int = STEP,
        factor: float = 1.0,
    ) -> None:
        self.kind, self.shape, self.data = kind, shape, data
        self.scales, self.group, self.factor = scales_PGL, group, factor

    @property
    def num_bytes(self) -> int:
        """Memory of weights and scales."""
        scales = 0 if self.scales is None else self.scales.nbytes
        return self.data.nbytes + scales

    @property
    def parts(self) -> int:
        """Pieces in which a product's outputs are computed, at most."""
        return -(-self.shape[0] // LANES)

    def layout(self, bias: Tensor | None = None) -> Layout:
        """What the kernels need; the tensors must outlive it."""
        return Layout(
            self.data.data_ptr(),
            None if self.scales is None else self.scales.data_ptr(),
            None if bias is None else bias.data_ptr(),
            *self.shape,
            KINDS.index(self.kind),
            -(-self.group // STEP) * STEP,
            self.factor,
        )

    @cached_property
    def bare_layout(self) -> Layout:
        """`layout()` without a bias, kept."""
        return self.layout()

    def unpack(self) -> Tensor:
        """The (N, K) weights in float32, exactly as products see them."""
        return (self._numbers() if self.scales is None else self._scaled()).contiguous()

    def quantized(self) -> tuple[Tensor, Tensor]:
        """Integers (N, K) in int8 and scales (N, G) in float32 of the int8 and int4 kinds."""
        assert self.scales is not None
        scale_NG = self.scales.transpose(1, 2).flatten(0, 1).float() * self.factor
        return self._numbers().to(torch.int8), scale_NG[: self.shape[0]]

    def rows(self, ids: Tensor) -> Tensor:
        """Weights of some outputs, (R, K) in float32."""
        ids = ids.to(torch.int64).contiguous()
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.shape[0]:
            raise EngineError(f"row {int(ids.max())} of a matrix with {self.shape[0]} rows")
        if library() is None:
            return self.dense[ids]
        out = torch.empty(len(ids), self.shape[1])
        layout = self.layout()
        call("packed_rows", ctypes.addressof(layout), ids, len(ids), out)
        return out

    @cached_property
    def dense(self) -> Tensor:
        """`unpack()`, kept: for the reference path."""
        return self.unpack()

    def _numbers(self) -> Tensor:
        """What is stored, (N, K), before scaling; integers lie around zero."""
        panels, steps = (
            -(-size // unit) for size, unit in zip(self.shape, (LANES, STEP), strict=True)
        )
        match self.kind:
            case "fp32":
                spread = self.data.view(panels, steps, STEP, LANES).permute(0, 3, 1, 2)
            case "bf16":
                pairs = self.data.view(panels, steps, STEP // 2, LANES, 2)
                spread = pairs.permute(0, 3, 1, 2, 4).float()
            case "int8":
                fours = self.data.view(panels, steps, STEP // 4, LANES, 4)
                spread = fours.permute(0, 3, 1, 2, 4).to(torch.int16) - 128
            case "int4":
                fours = self.data.view(panels, steps, STEP // 8, LANES, 4)
                halves = torch.stack((fours & 15, fours >> 4), dim=2)
                spread = halves.permute(0, 4, 1, 2, 3, 5).to(torch.int16) - 8
        rows, inputs = self.shape
        return spread.reshape(panels * LANES, steps * STEP)[:rows, :inputs]

    def _scaled(self) -> Tensor:
        q_NK, scale_NG = self.quantized()
        scale_NK = scale_NG.repeat_interleave(self.group, dim=1)[:, : self.shape[1]]
        return q_NK.float() * scale_NK


def pack(weight_NK: Tensor, kind: Kind) -> PackedMatrix:
    """Pack a matrix; to 8 and 4 bits it is rounded to nearest, in groups of 32 where K allows.

    Raises:
        EngineError: it is not a matrix of floating-point numbers.
    """
    if weight_NK.ndim != 2 or not weight_NK.is_floating_point():
        raise EngineError(f"only a floating-point matrix can be packed, not {weight_NK.shape}")
    if kind in BITS:
        group = STEP if weight_NK.shape[1] % STEP == 0 else weight_NK.shape[1]
        q_NK, scale_NG = round_to_nearest(weight_NK, BITS[kind], group)
        return pack_quantized(q_NK, scale_NG, BITS[kind], group)
    dtype = torch.float32 if kind == "fp32" else torch.bfloat16
    rows, inputs = weight_NK.shape
    panels, steps = -(-rows // LANES), -(-inputs // STEP)
    data = allocate(panels * steps * LANES * STEP, dtype)
    # four bytes at a time: one number, or two of bfloat16
    words = STEP * dtype.itemsize // 4
    out = data.view(torch.int32).view(panels, steps, words, LANES)
    for part in _parts(panels, inputs):
        x = _padded(weight_NK.detach()[part.start * LANES : part.stop * LANES].to(dtype), steps)
        out[part] = x.view(torch.int32).view(-1, LANES, steps, words).permute(0, 2, 3, 1)
    return PackedMatrix(kind, (rows, inputs), data)


def pack_quantized(q_NK: Tensor, scale_NG: Tensor, bits: int, group: int) -> PackedMatrix:
    """Pack integers with a scale per group of inputs: weight = q * scale.

    Scales are rounded as `round_scales` does. `group` is 32, 64, 128, or K: one scale an output.

    Raises:
        EngineError: sizes, numbers or the group are not supported.
    """
    rows, inputs = q_NK.shape
    if bits not in (4, 8) or q_NK.dtype != torch.int8:
        raise EngineError(f"weights are int8 numbers of 8 or 4 bits, not {q_NK.dtype} of {bits}")
    if group != inputs and (group not in GROUPS or inputs % group):
        raise EngineError(
            f"a group of {group} inputs does not fit {inputs}: use {GROUPS} where it divides "
            f"them, or {inputs}"
        )
    if scale_NG.shape != (rows, inputs // group):
        raise EngineError(f"scales {tuple(scale_NG.shape)} are not ({rows}, {inputs // group})")
    if bits == 4 and rows and not -8 <= int(q_NK.min()) <= int(q_NK.max()) <= 7:
        raise EngineError("4-bit weights must lie in -8 ... 7")
    half_NG, factor = _half_scales(scale_NG)
    panels, steps = -(-rows // LANES), -(-inputs // STEP)
    padded_NG = F.pad(half_NG, (0, 0, 0, panels * LANES - rows))
    scales_PGL = padded_NG.view(panels, LANES, -1).transpose(1, 2).contiguous()
    data = allocate(panels * steps * LANES * STEP * bits // 8, torch.uint8)
    out = data.view(torch.int32).view(panels, steps, bits, LANES)
    for part in _parts(panels, inputs):
        x = _padded(q_NK[part.start * LANES : part.stop * LANES], steps)
        biased = x.view(torch.uint8) + (1 << (bits - 1))  # modulo 256
        fours = biased.view(torch.int32).view(-1, LANES, steps, 8).permute(0, 2, 3, 1)
        out[part] = fours if bits == 8 else fours[:, :, :4] | fours[:, :, 4:] << 4
    kind: Kind = "int8" if bits == 8 else "int4"
    return PackedMatrix(kind, (rows, inputs), data, scales_PGL, group, factor)


def round_to_nearest(weight_NK: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Integers (N, K) and scales (N, G) such that q * scale is close to the weights."""
    x_NGK = weight_NK.detach().float().unflatten(1, (-1, group))
    if bits == 8:
        scale_NG = round_scales(x_NGK.abs().amax(2) / 127)
        low = -127
    else:
        # -8 has no counterpart: the number farthest from zero becomes -8, whatever its sign; the
        # scale would be negative for a positive one, which then becomes 7 at most
        high_NG, low_NG = x_NGK.amax(2).clamp_min(0), (-x_NGK.amin(2)).clamp_min(0)
        scale_NG = round_scales(torch.maximum(high_NG / 7.5, low_NG / 8))
        low = -8
    q_NGK = (x_NGK / scale_NG[..., None].clamp_min(1e-30)).round()
    return q_NGK.clamp(low, (1 << (bits - 1)) - 1).to(torch.int8).flatten(1), scale_NG


def round_scales(scale: Tensor) -> Tensor:
    """The scales as `pack_quantized` keeps them: float16 times a power of two."""
    half, factor = _half_scales(scale)
    return half.float() * factor


BEST = np.dtype([("value", np.float32), ("place", np.int32)])
"""The greatest number of a row, NaN if one of them is not finite, and where it stands."""


def product(
    x_RK: Tensor,
    matrix: PackedMatrix,
    softcap: float | None = None,
    out: Tensor | None = None,
    best_R: NDArray[np.void] | None = None,
) -> Tensor:
    """x W^T in float32, (R, N); as cap tanh(y / cap) with a cap.

    bf16 matrices round x to bfloat16; int8 and int4 ones to 8 bits, 32 numbers with one scale.
    `out` may be given: new memory for many logits takes longer than a part of the arithmetic.
    `best_R`, of type `BEST`, is filled with the greatest of each row, before the cap.
    """
    if x_RK.ndim != 2 or x_RK.shape[1] != matrix.shape[1]:
        raise EngineError(f"rows {tuple(x_RK.shape)} do not fit a matrix {matrix.shape}")
    kernels, rows = library(), len(x_RK)
    if out is None:
        out = torch.empty(rows, matrix.shape[0])
    elif out.shape != (rows, matrix.shape[0]) or out.dtype != torch.float32:
        raise EngineError(f"out must be float32 of {(rows, matrix.shape[0])}")
    elif not out.is_contiguous():
        raise EngineError("out must be contiguous")
    if kernels is None:
        out.copy_(product_reference(x_RK, matrix))
        if best_R is not None:
            values, places = out.max(1)
            values[~out.isfinite().all(1)] = torch.nan
            best_R["value"], best_R["place"] = values.numpy(), places.numpy()
        return out if softcap is None else out.div_(softcap).tanh_().mul_(softcap)
    x_RK = x_RK.float().contiguous()
    layout = matrix.bare_layout
    kernels.packed_memory.restype = ctypes.c_int64
    size = kernels.packed_memory(ctypes.byref(layout), ctypes.c_int64(rows))
    scratch = torch.empty(size + 64, dtype=torch.uint8)
    parts = None if best_R is None else np.empty(rows * matrix.parts, np.float32)
    kernels.packed_product(
        ctypes.byref(layout),
        ctypes.c_void_p(x_RK.data_ptr()),
        ctypes.c_int64(rows),
        ctypes.c_void_p(out.data_ptr()),
        ctypes.c_float(softcap or 0.0),
        *(None if x is None else ctypes.c_void_p(x.ctypes.data) for x in (best_R, parts)),
        ctypes.c_void_p(-(-scratch.data_ptr() // 64) * 64),
        ctypes.c_int(torch.get_num_threads()),
    )
    return out


def product_reference(x_RK: Tensor, matrix: PackedMatrix, softcap: float | None = None) -> Tensor:
    """Same as `product`, in plain torch."""
    x_RK = x_RK.float()
    if matrix.kind == "bf16":
        x_RK = x_RK.bfloat16().float()
    elif matrix.kind in BITS:
        x_RSK = F.pad(x_RK, (0, -x_RK.shape[1] % STEP)).unflatten(1, (-1, STEP))
        most_RS1 = x_RSK.abs().amax(2, keepdim=True)
        q_RSK = (x_RSK * torch.where(most_RS1 > TINY, 127 / most_RS1, 0)).round()
        x_RK = (q_RSK * (most_RS1 / 127)).flatten(1)[:, : x_RK.shape[1]]
    scores = x_RK @ matrix.dense.T
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def _half_scales(scale: Tensor) -> tuple[Tensor, float]:
    """float16 scales, and the power of two that brings the largest near the top of their range."""
    scale = scale.detach().float()
    if not bool(scale.isfinite().all()):
        raise EngineError("scales of quantized weights must be finite")
    most = float(scale.abs().max()) if scale.numel() else 0.0
    factor = 2.0 ** (math.frexp(most)[1] - 14) if most > 0 else 1.0
    return (scale / factor).half(), factor


def _padded(x_NK: Tensor, steps: int) -> Tensor:
    return F.pad(x_NK, (0, steps * STEP - x_NK.shape[1], 0, -len(x_NK) % LANES)).contiguous()


def _parts(panels: int, inputs: int) -> list[slice]:
    """Pieces of a few million numbers, so that packing needs little memory beside the result."""
    size = max(1, 2**22 // (LANES * max(inputs, 1)))
    return [slice(i, min(i + size, panels)) for i in range(0, panels, size)]


def allocate(count: int, dtype: torch.dtype) -> Tensor:
    """Zeros; if there are many, in large memory pages, which are read faster."""
    size = count * dtype.itemsize
    if size < LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(count, dtype=dtype)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype)
