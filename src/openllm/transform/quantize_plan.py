# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Choose bits for each part of a model under a limit of size or of loss."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from openllm.nn.quantized import Scheme


class Choice(NamedTuple):
    """One way to store a unit.

    Attributes:
        scheme: none: as it is.
        size: bytes.
        loss: what it costs, if nothing else is quantised.
    """

    scheme: Scheme | None
    size: int
    loss: float


Plan = dict[str, Choice]
"""Unit -> the choice."""


def plan(
    choices: Mapping[str, Sequence[Choice]],
    *,
    max_size: float = float("inf"),
    max_loss: float = 0.0,
) -> Plan | None:
    """Start from the smallest model; while it loses too much, enlarge what gains most per byte.

    Losses are added, as if units did not interact; the caller measures the result.

    Args:
        choices: of each unit.
        max_size: bytes of all units.
        max_loss: of all units; the default makes the best model of that size.

    Returns:
        None if no plan is within the limits.
    """
    chosen = {unit: min(given, key=lambda choice: choice.size) for unit, given in choices.items()}
    while total_loss(chosen) > max_loss:
        room = max_size - total_size(chosen)
        steps = [
            (
                (chosen[unit].loss - better.loss) / max(1, better.size - chosen[unit].size),
                unit,
                better,
            )
            for unit, given in choices.items()
            for better in given
            if better.loss < chosen[unit].loss and better.size - chosen[unit].size <= room
        ]
        if not steps:
            break
        _, unit, better = max(steps, key=lambda step: step[0])
        chosen[unit] = better
    fits = total_size(chosen) <= max_size
    return chosen if fits and (max_loss == 0 or total_loss(chosen) <= max_loss) else None


def total_size(chosen: Plan) -> int:
    """Bytes of all units."""
    return sum(choice.size for choice in chosen.values())


def total_loss(chosen: Plan) -> float:
    """Sum of what the choices cost alone."""
    return sum(choice.loss for choice in chosen.values())
