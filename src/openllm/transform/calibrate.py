# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Quantise matrices so that their products with real inputs change least (GPTQ, arXiv:2210.17323).

Columns are rounded one after the other, and what each loses is made good by those that follow, as
far as the inputs of the layer, seen on calibration text, let one column stand in for another.
"""

# N rows, K columns, C columns of a piece

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from openllm.nn.model import Transformer
from openllm.nn.quantized import HEAD, LIMITS, QuantizedTensor, Scheme
from openllm.transform.quantize import narrowed, quantize, scales

DAMPING = 0.01
"""Added to the diagonal of the inputs' products, as a share of its mean, to invert them."""

PIECE = 128
"""Columns that are rounded before all later ones are corrected; a multiple of any group."""


@torch.no_grad()
def calibrated(
    model: Transformer,
    schemes: Mapping[str, Scheme],
    texts: Sequence[Callable[[], object]],
    done: Callable[[], None] = lambda: None,
) -> dict[str, QuantizedTensor]:
    """Quantise matrices of a model, layer by layer, in place.

    Each layer is fitted to the outputs of the earlier ones as they have become. The table of an
    embedding has no inputs, and 8 bits leave little to gain (docs/LOG.md): both are rounded.

    Args:
        model: in evaluation mode; its weights become the dequantised ones.
        schemes: name of each matrix -> what it becomes.
        texts: each shows the model some calibration text.
        done: called after each matrix.
    """
    found = {}

    def settle(names: Iterable[str], run: Callable[[], object]) -> None:
        names = [name for name in names if name in schemes]
        grams = _grams(model, [name for name in names if schemes[name].bits == 4], run)
        for name in names:
            weight = model.get_parameter(name)
            if name in grams:
                found[name] = gptq(weight.float(), grams.pop(name), schemes[name])
            else:
                found[name] = quantize(weight, schemes[name])
            weight.copy_(found[name].dequantize(weight.dtype))
            done()

    every = [name for name, _ in model.named_parameters()]
    outside = [name for name in every if not name.startswith("layers.") and name != HEAD]
    settle(outside, lambda: None)
    calls = _calls(model, texts)
    for number, layer in enumerate(model.layers):
        if model.research is not None and number:  # what is added between layers has changed
            calls = _calls(model, texts, number)
        inner = [name for name in every if name.startswith(f"layers.{number}.")]
        settle(inner, lambda: [layer(call.x, *call.rest[number]) for call in calls])  # noqa: B023
        for call in calls:
            call.x = layer(call.x, *call.rest[number])
    settle([HEAD], lambda: [model.norm(call.x) for call in calls])
    return found


@dataclass
class _Call:
    """A pass through the layers.

    Attributes:
        x: what the next layer reads.
        rest: the other arguments of each layer.
    """

    x: Tensor
    rest: dict[int, tuple[Any, ...]]


def _calls(
    model: Transformer, texts: Sequence[Callable[[], object]], first: int = 0
) -> list[_Call]:
    """What layers are called with, from the layer `first`, whose input is kept."""
    calls: list[_Call] = []

    def keep(number: int, args: tuple[Any, ...]) -> None:
        if number == first:
            calls.append(_Call(args[0], {}))
        if number >= first:
            calls[-1].rest[number] = args[1:]

    handles = [
        layer.register_forward_pre_hook(lambda _, args, number=number: keep(number, args))
        for number, layer in enumerate(model.layers)
    ]
    try:
        for text in texts:
            text()
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _grams(
    model: Transformer, names: Sequence[str], run: Callable[[], object]
) -> dict[str, Tensor]:
    """For each linear layer the sum of x x^T over its inputs x, (K, K)."""
    sums: dict[str, Tensor] = {}
    handles = []
    for name in names:
        module = model.get_submodule(name.removesuffix(".weight"))
        if name == HEAD:  # which is applied outside of the model
            handles.append(model.norm.register_forward_hook(_Adder(sums, name).output))
        elif isinstance(module, nn.Linear):
            handles.append(module.register_forward_pre_hook(_Adder(sums, name).input))
    try:
        if handles:
            run()
    finally:
        for handle in handles:
            handle.remove()
    return sums


class _Adder:
    """Hooks that add up x x^T."""

    def __init__(self, sums: dict[str, Tensor], name: str) -> None:
        self.sums, self.name = sums, name

    def input(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._add(args[0])

    def output(self, module: nn.Module, args: tuple[Tensor, ...], result: Tensor) -> None:
        self._add(result)

    def _add(self, x: Tensor) -> None:
        rows = x.detach().flatten(0, -2).float()
        gram = rows.T @ rows
        self.sums[self.name] = self.sums[self.name].add_(gram) if self.name in self.sums else gram


def gptq(weight_NK: Tensor, gram_KK: Tensor, scheme: Scheme) -> QuantizedTensor:
    """Quantise a matrix for inputs x whose x x^T add up to `gram_KK`."""
    columns = weight_NK.shape[1]
    group = columns if scheme.group is None else scheme.group
    weight_NK = weight_NK.clone()
    upper_KK = _factor(gram_KK)
    scale_NG = [scales(weight_NK, scheme)] if scheme.group is None else []
    q_NK = torch.empty_like(weight_NK, dtype=torch.int8)
    low, high = LIMITS[scheme.bits]
    for start in range(0, columns, PIECE):
        stop = min(start + PIECE, columns)
        losses_NC = torch.empty_like(weight_NK[:, start:stop])
        for column in range(start, stop):
            if scheme.group is not None and column % group == 0:
                scale_NG.append(scales(weight_NK[:, column : column + group], scheme))
            step_N = scale_NG[-1][:, 0].float()
            value_N = weight_NK[:, column]
            whole_N = torch.where(step_N == 0, 0.0, value_N / step_N).round_().clamp_(low, high)
            q_NK[:, column] = whole_N.to(torch.int8)
            loss_N = (value_N - whole_N * step_N) / upper_KK[column, column]
            weight_NK[:, column:stop] -= torch.outer(loss_N, upper_KK[column, column:stop])
            losses_NC[:, column - start] = loss_N
        weight_NK[:, stop:] -= losses_NC @ upper_KK[start:stop, stop:]
    # one group alone may have been too small for float16, but not beside the others
    whole_NG = narrowed(torch.cat([part.float() for part in scale_NG], 1))
    return QuantizedTensor(q_NK, whole_NG, scheme.bits, group)


def _factor(gram_KK: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse; inputs that are always zero are left apart."""
    gram_KK = gram_KK.clone()
    diagonal = gram_KK.diagonal()
    diagonal[diagonal == 0] = 1
    diagonal += DAMPING * diagonal.mean()
    lower = torch.linalg.cholesky(gram_KK)
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
