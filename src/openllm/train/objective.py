# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Training objectives: named loss terms, each with a sum, a count and a weight.

The counts of a whole step are known before its first backward pass, so that splitting the step
into micro-batches (or ranks) weights each token exactly once.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from openllm.data.loader import Batch
from openllm.nn.context import AttentionContext
from openllm.nn.heads import cross_entropy_sum, distillation_sum
from openllm.nn.model import Transformer


class Term(NamedTuple):
    """One term of a loss: a sum over a micro-batch and its weight in the total."""

    sum: Tensor
    weight: float = 1.0


class Objective(Protocol):
    """A loss that the trainer can minimise."""

    def counts(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Number of items each term sums over in a whole step."""
        ...

    def terms(self, model: Transformer, batch: Batch) -> dict[str, Term]:
        """Compute the terms of one micro-batch."""
        ...


class NextToken:
    """Next-token cross-entropy within each document, in nats."""

    def counts(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Number of predicted tokens."""
        return {"loss": sum(batch.num_targets for batch in batches)}

    def terms(self, model: Transformer, batch: Batch) -> dict[str, Term]:
        """Sum of -log p over the predicted tokens."""
        targets = _targets(model, batch)
        total = cross_entropy_sum(_states(model, batch), model.head, targets)
        return {"loss": Term(total)}


class Distill(NextToken):
    """Cross-entropy to a mixture of the next token and the teachers' predictions, in nats.

    It cannot fall below the entropy of the mixture and is not a next-token loss.

    Args:
        teachers: models with the student's vocabulary, on its device.
        share: weight of their mean distribution in the mixture.
    """

    def __init__(self, teachers: Sequence[Transformer], share: float) -> None:
        self.teachers = [teacher.eval().requires_grad_(False) for teacher in teachers]
        self.share = share

    def counts(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Number of predicted tokens."""
        return {"distillation": super().counts(batches)["loss"]}

    def terms(self, model: Transformer, batch: Batch) -> dict[str, Term]:
        """Sum of the loss over the predicted tokens."""
        with torch.no_grad():
            taught = [(_states(t, batch), t.head) for t in self.teachers]
        states, targets = _states(model, batch), _targets(model, batch)
        total = distillation_sum(states, model.head, targets, taught, self.share)
        return {"distillation": Term(total)}


def _states(model: Transformer, batch: Batch) -> Tensor:
    """Hidden states of all tokens of a batch, (B T, D)."""
    device = model.embed_tokens.weight.device
    hidden = model(
        torch.from_numpy(batch.tokens).to(device),
        positions=torch.from_numpy(batch.positions).to(device),
        attn=AttentionContext(batch.cu_seqlens),
    )
    return hidden.x.flatten(0, 1)


def _targets(model: Transformer, batch: Batch) -> Tensor:
    return torch.from_numpy(batch.targets).to(model.embed_tokens.weight.device).flatten()
