# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Choose tokens after a model run: one for each sequence, then more while its draft is right."""

# W wanted rows, D model

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from openllm.engine.live import Live
from openllm.engine.runner import Runner
from openllm.engine.sampler import choose
from openllm.engine.scheduler import Slice


class Pen(NamedTuple):
    """A continuation that is computed up to its last token, and the row of that token's state."""

    piece: Slice
    live: Live
    row: int


def write(runner: Runner, pens: Sequence[Pen], states_WD: Tensor) -> list[int]:
    """Append tokens to each continuation; returns how much of each draft was right.

    Args:
        runner: that made the states.
        pens: in the order of their rows; the states of a draft follow that of the last token.
        states_WD: of all wanted rows.
    """
    accepted = [0] * len(pens)
    going, place = list(range(len(pens))), 0
    while going:
        rows = [pens[number].row + place for number in going]
        # as many rows as states are all of them, which need no copy
        chosen_WD = states_WD if len(rows) == len(states_WD) else states_WD[rows]
        scores = runner.logits(chosen_WD)
        choices = choose(scores.all_WV, [pens[i].live.row() for i in going], scores.best_W)
        still = []
        for number, choice in zip(going, choices, strict=True):
            piece, live, _ = pens[number]
            draft = piece.sequence.draft
            live.take(choice)
            hit = place < piece.drafted and draft[place] == choice.token
            if hit and live.output.finish_reason is None:
                accepted[number] += 1
                still.append(number)
        going, place = still, place + 1
    return accepted
