# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What training minimises: named terms, each with its sum, its count and its weight.

The counts of a whole accumulated step are known before the first backward pass, so that splitting
a step into micro-batches (or ranks) weights each token exactly once.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from openllm.data.loader import Batch
from openllm.nn.context import AttentionContext
from openllm.nn.heads import cross_entropy_sum
from openllm.nn.model import Transformer


class Term(NamedTuple):
    """One term of a loss: a sum over a micro-batch and its weight in the total."""

    sum: Tensor
    weight: float = 1.0


class Objective(Protocol):
    """A loss that the trainer can minimise."""

    def counts(self, batches: Sequence[Batch]) -> dict[str, int]:
        """How many things each term sums over in a whole step."""
        ...

    def terms(self, model: Transformer, batch: Batch) -> dict[str, Term]:
        """The terms of one micro-batch."""
        ...


class NextToken:
    """Cross-entropy of the next token of the same document, in nats."""

    def counts(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Number of predicted tokens."""
        return {"loss": sum(batch.num_targets for batch in batches)}

    def terms(self, model: Transformer, batch: Batch) -> dict[str, Term]:
        """Sum of -log p over the predicted tokens."""
        device = model.embed_tokens.weight.device
        hidden = model(
            torch.from_numpy(batch.tokens).to(device),
            positions=torch.from_numpy(batch.positions).to(device),
            attn=AttentionContext(batch.cu_seqlens),
        )
        targets = torch.from_numpy(batch.targets).to(device)
        total = cross_entropy_sum(hidden.x.flatten(0, 1), model.output_weight, targets.flatten())
        return {"loss": Term(total)}
