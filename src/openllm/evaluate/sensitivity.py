# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Which matrices of a model bear few bits: each is quantised alone, and the model asked again."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from openllm.evaluate.divergence import Change, Divergence
from openllm.nn.model import Transformer
from openllm.nn.quantized import Scheme
from openllm.transform.quantize import quantize


class Trial(NamedTuple):
    """One unit quantised alone.

    Attributes:
        unit: of `transform.quantize.units`.
        bits: 8 or 4.
        change: of the model.
    """

    unit: str
    bits: int
    change: Change


@torch.no_grad()
def sensitivity(
    model: Transformer,
    schemes: Mapping[str, Mapping[str, Scheme]],
    text: Divergence,
    done: Callable[[], None] = lambda: None,
) -> list[Trial]:
    """Quantise each unit alone with each of its schemes; the model is left as it was.

    Args:
        model: the original.
        schemes: unit -> our name of each of its matrices -> the scheme, whose bits are tried as
            `TRIED` has them.
        text: what to ask.
        done: called after each trial.
    """
    trials = []
    for unit, matrices in schemes.items():
        held = {name: model.get_parameter(name).data for name in matrices}
        for bits in TRIED:
            for name, scheme in matrices.items():
                made = quantize(held[name], scheme._replace(bits=bits))
                model.get_parameter(name).data = made.dequantize(held[name].dtype)
            trials.append(Trial(unit, bits, text.of(model)))
            done()
        for name, weight in held.items():
            model.get_parameter(name).data = weight
    return trials


TRIED: Sequence[int] = (8, 4)
"""Bits."""
