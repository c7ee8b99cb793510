# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A matrix of small integers: each group of neighbouring columns of a row shares a scale."""

# N rows, K columns, G groups of a row

from typing import NamedTuple

import torch
from torch import Tensor

LIMITS = {8: (-127, 127), 4: (-8, 7)}
"""Bits -> least and greatest integer; -128 is left out, so that negation stays within 8 bits."""


EMBEDDING, HEAD = "embed_tokens.weight", "lm_head.weight"
"""Our names of the table of token vectors, which may also be the head, and of a head of its own."""


def bits_of(name: str, bits: int) -> int:
    """Bits of a matrix in a model of so many: embedding and head, which lose most, keep 8.

    Rare tokens have few other weights.
    """
    return 8 if name in (EMBEDDING, HEAD) else bits


class Scheme(NamedTuple):
    """How a matrix is quantised.

    Attributes:
        bits: 8 or 4.
        group: columns that share a scale; none: all of a row.
    """

    bits: int
    group: int | None


class QuantizedTensor(NamedTuple):
    """A weight, `q * scale`.

    Attributes:
        q: (N, K) int8.
        scale: (N, G) float; may be negative.
        bits: 8 or 4.
        group: columns that share a scale, K / G.
    """

    q: Tensor
    scale: Tensor
    bits: int
    group: int

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return self.q.shape[0], self.q.shape[1]

    @property
    def scheme(self) -> Scheme:
        """Bits and group, in which a whole row is none."""
        return Scheme(self.bits, None if self.group == self.shape[1] else self.group)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the integers, packed, and of the scales."""
        rows, columns = self.shape
        return rows * (columns * self.bits // 8) + self.scale.numel() * self.scale.itemsize

    def rows(self, start: int, stop: int) -> "QuantizedTensor":
        """Some of the rows; shares memory."""
        return self._replace(q=self.q[start:stop], scale=self.scale[start:stop])

    def regrouped(self, group: int) -> "QuantizedTensor | None":
        """The same matrix with smaller groups, which repeat scales; none if groups do not split."""
        if self.group % group:
            return None
        scale = self.scale.repeat_interleave(self.group // group, 1)
        return self._replace(scale=scale, group=group)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(N, K); in float32 the products are exact if the scales are float16."""
        q_NGC = self.q.unflatten(1, (-1, self.group)).float()
        return (q_NGC * self.scale.float()[..., None]).flatten(1).to(dtype)


def round_to(weight_NK: Tensor, scale_NG: Tensor, bits: int) -> QuantizedTensor:
    """The nearest matrix with these scales; a group whose scale is zero becomes zero."""
    group = weight_NK.shape[1] // scale_NG.shape[1]
    low, high = LIMITS[bits]
    weight_NGC = weight_NK.float().unflatten(1, (-1, group))
    steps = scale_NG.float()[..., None]
    whole = torch.where(steps == 0, 0.0, weight_NGC / steps).round_().clamp_(low, high)
    return QuantizedTensor(whole.flatten(1).to(torch.int8), scale_NG, bits, group)
