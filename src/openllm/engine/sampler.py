# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Sample the next token from logits."""

# V vocabulary

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from openllm.engine.request import SamplingParams


def uniform(seed: int, position: int) -> float:
    """Draw from [0, 1) as a function of (seed, position) alone, so batching cannot change it."""
    return float(np.random.Generator(np.random.Philox(key=seed, counter=position)).random())


def choose(logits_V: Tensor, params: SamplingParams, *, seen: Sequence[int], position: int) -> int:
    """Choose the next token of one request.

    Args:
        logits_V: float32 logits; -inf for forbidden tokens.
        params: temperature and filters, applied in the order penalty, temperature, top-k, top-p,
            min-p (arXiv:1909.05858, 1904.09751, 2407.01082).
        seen: tokens of the prompt and the continuation so far.
        position: number of tokens before the new one.
    """
    scores = logits_V
    if params.repetition_penalty != 1.0 and len(seen):
        scores = scores.clone()
        used = torch.tensor(sorted(set(seen)), device=scores.device)
        old = scores[used].double()
        penalty = params.repetition_penalty
        new = torch.where(old > 0, old / penalty, old * penalty)
        # an extreme penalty must not produce infinite scores, which only forbidden tokens have
        most = torch.finfo(scores.dtype).max
        scores[used] = torch.where(old.isfinite(), new.clamp(-most, most), old).to(scores.dtype)
    if params.temperature == 0:
        return int(scores.argmax())
    # sort once: every filter then keeps a prefix
    values, order = scores.sort(descending=True, stable=True)
    if params.top_k:
        values = values[: params.top_k]
    # relative to the maximum, since a very low temperature would overflow
    probs = ((values.double() - values[0]) / params.temperature).softmax(0)
    probs = probs[probs > 0]
    if params.top_p < 1:
        before = probs.cumsum(0) - probs
        probs = probs[before < params.top_p]
    if params.min_p > 0:
        probs = probs[probs >= params.min_p * probs[0]]
    cumulative = (probs / probs.sum()).cumsum(0)
    drawn = uniform(params.seed, position)
    index = int(
        torch.searchsorted(cumulative, torch.tensor(drawn, dtype=torch.float64), right=True)
    )
    return int(order[min(index, len(probs) - 1)])
