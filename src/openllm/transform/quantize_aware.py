# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Training for few bits: the model is shown its weights as they will be stored (arXiv:2004.07320).

Forward and backward pass see rounded weights; the gradient goes to the weights behind them as if
rounding changed nothing (straight-through, arXiv:1308.3432).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from openllm.nn.model import Transformer
from openllm.nn.quantized import QuantizedTensor, Scheme, bits_of, round_to
from openllm.transform.quantize import fitting, largest_scales, units


class Rounding:
    """Rounds the matrices of a model, in the same way for training, validation and the files.

    Scales are those of the largest weights: they follow the weights and need no search.

    Args:
        shapes: our name of each tensor of the model -> its shape.
        bits: of the layers; `bits_of` says those of embedding and head.
        group: weights that share a scale.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], *, bits: int, group: int) -> None:
        self.schemes: dict[str, Scheme] = {}
        self.left: list[str] = []
        """Units that are not rounded: no group fits their rows."""
        for unit, names in units(shapes).items():
            wanted = {name: Scheme(bits_of(name, bits), group) for name in names}
            fits = {name: fitting(wanted[name], shapes[name][1]) for name in names}
            if None in fits.values():
                self.left.append(unit)
            else:
                self.schemes |= {name: s for name, s in fits.items() if s is not None}

    def matrices(self, state: Mapping[str, Tensor]) -> dict[str, QuantizedTensor]:
        """The matrices of a model as they are stored."""
        return {name: _rounded(state[name], scheme) for name, scheme in self.schemes.items()}

    @contextmanager
    def applied(self, model: Transformer) -> Iterator[None]:
        """Show the model rounded weights within a `with` block."""
        held = {name: model.get_parameter(name).data for name in self.schemes}
        for name, weight in held.items():
            rounded = _rounded(weight, self.schemes[name])
            model.get_parameter(name).data = rounded.dequantize(weight.dtype)
        try:
            yield
        finally:
            for name, weight in held.items():
                model.get_parameter(name).data = weight


@torch.no_grad()
def _rounded(weight_NK: Tensor, scheme: Scheme) -> QuantizedTensor:
    return round_to(weight_NK, largest_scales(weight_NK, scheme), scheme.bits)
