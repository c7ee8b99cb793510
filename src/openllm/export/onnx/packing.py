# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Smaller forms of a model's matrices: in half precision, or in blocks of 8 or 4 bits.

In a block, 32 neighbouring weights of a row are small integers that share a scale. Products with
them are operators of onnxruntime, so such a model runs only there, once exported. The embedding is
one table for look-up and, if tied, for the logits; it is stored once.
"""

# N rows, C columns, K blocks of a row, V vocabulary, D model

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openllm.nn.model import Transformer
from openllm.nn.quantized import QuantizedTensor

BLOCK = 32
"""Weights that share a scale."""

_ONNX = torch.onnx.ops.symbolic


class HalfLinear(nn.Module):
    """A linear layer in float16 between float32 activations."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.half(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)

    def project(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., N)."""
        product = F.linear(x.half(), self.weight).float()
        return product if self.bias is None else product + self.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., N)."""
        return self.project(x)


class HalfTable(HalfLinear):
    """An embedding in float16 that gives float32."""

    def forward(self, ids: Tensor) -> Tensor:
        """(...) -> (..., D)."""
        return F.embedding(ids, self.weight).float()


class BlockLinear(nn.Module):
    """A linear layer whose weights are blocks of integers of 8 or 4 bits.

    Outside of an export to ONNX, its products are zeros.

    Args:
        weight: (N, C).
        bias: (N,).
        bits: 8 or 4.
        round_inputs: where onnxruntime can, it multiplies 8-bit integers: inputs are rounded too.
        stored: what the weight was read from, if it is quantised; it keeps its bits and integers.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        bits: int,
        *,
        round_inputs: bool = True,
        stored: QuantizedTensor | None = None,
    ) -> None:
        super().__init__()
        split = None if stored is None else stored.regrouped(BLOCK)
        self.bits = bits if split is None else max(bits, split.bits)
        self.round_inputs = round_inputs
        self.rows, self.columns = weight.shape
        if split is None:
            whole_NKB, scales_NK = to_blocks(weight.detach(), bits)
        else:
            raised = split.q.to(torch.int16) + 2 ** (self.bits - 1)
            whole_NKB = raised.to(torch.uint8).unflatten(1, (-1, BLOCK))
            scales_NK = split.scale.float()
        if self.bits == 4:
            whole_NKB = whole_NKB[..., ::2] | whole_NKB[..., 1::2] << 4
        self.register_buffer("blocks", whole_NKB)
        self.register_buffer("scales", scales_NK)
        self.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., N)."""
        return self.project(x)

    def project(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., N)."""
        product = _ONNX(
            "com.microsoft::MatMulNBits",
            (x, self.blocks, self.scales),
            {
                "K": self.columns,
                "N": self.rows,
                "bits": self.bits,
                "block_size": BLOCK,
                "accuracy_level": 4 if self.round_inputs else 1,  # 8-bit integers, or float32
            },
            dtype=torch.float32,
            shape=(*x.shape[:-1], self.rows),
            version=1,
        )
        return product if self.bias is None else product + self.bias


class BlockTable(BlockLinear):
    """An embedding whose rows are blocks of integers."""

    def forward(self, ids: Tensor) -> Tensor:
        """(...) -> (..., D)."""
        rows = _ONNX(
            "com.microsoft::GatherBlockQuantized",
            (self.blocks.flatten(1), ids, self.scales),
            {"bits": self.bits, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1},
            dtype=torch.float32,
            shape=(*ids.shape, self.scales.shape[1] * BLOCK),
            version=1,
        )
        return rows[..., : self.columns]


def to_blocks(weight_NC: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Integers (N, K, 32) in uint8, with the middle as zero, and float32 scales (N, K)."""
    half = 2 ** (bits - 1)
    padded = F.pad(weight_NC.float(), (0, -weight_NC.shape[1] % BLOCK))
    blocks = padded.unflatten(1, (-1, BLOCK))
    # the largest weight becomes -half, which has one step more than the other end
    largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    scales = -largest / half
    whole = torch.where(scales == 0, 0.0, blocks / scales).round().clamp(-half, half - 1)
    return (whole + half).to(torch.uint8), scales[..., 0]


def from_blocks(whole_NKB: Tensor, scales_NK: Tensor, bits: int, columns: int) -> Tensor:
    """The weights (N, C) that blocks stand for."""
    values = (whole_NKB.float() - 2 ** (bits - 1)) * scales_NK[..., None]
    return values.flatten(1)[:, :columns]


def pack(
    model: Transformer,
    linear: Callable[[Tensor, Tensor | None], nn.Module],
    table: Callable[[Tensor, None], nn.Module],
) -> None:
    """Replace all matrices of a model in place, those of embedding and head by tables."""
    for parent in list(model.modules()):
        for name, part in list(parent.named_children()):
            if part is model.lm_head or isinstance(part, nn.Embedding):
                parent.register_module(name, table(part.weight, None))
            elif isinstance(part, nn.Linear):
                parent.register_module(name, linear(part.weight, part.bias))
