# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The next token of each row of logits (sampling.cpp): bans, penalties, filters, the draw.

`sample_reference` is plain torch, for any device; `sample` uses the kernel where it can. A draw is
the argmax of log p + Gumbel noise over the kept tokens, which has the distribution p. The noise is
a function of seed, position, sample and token (`philox.py`), so a row's token does not depend on
the rows beside it, and two models that nearly agree nearly always draw the same token.
"""

# R rows, V vocabulary, N listed tokens

import ctypes
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from openllm.nn.kernels.operation import call, usable
from openllm.nn.kernels.philox import gumbel

ALL_FORBIDDEN, NOT_FINITE = -1, -2
"""In place of a token: no token is allowed; the logits hold NaN or infinity."""


def _integers() -> array:
    return array("i")


def _no_ids() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


@dataclass(slots=True)
class RowSettings:
    """How the token of one row is chosen; the defaults sample from the model's distribution.

    Attributes:
        position, sample, seed: of the noise.
        temperature: 0 for the best token.
        top_k: 0 for all.
        top_p, min_p, typical_p: 1, 0 and 1 for all.
        repetition, presence, frequency: penalties of `used` tokens.
        num_top: so many best tokens are listed; with -1, not even the chosen one's log-probability.
        banned: ids that must not come, int64.
        mask: a bit for each allowed id, packed into int32; ids beyond it are not allowed.
        used: distinct ids of the prompt and the continuation.
        counts: how often each of `used` was generated.
        bias_ids, bias: what is added to the logits of some ids.
    """

    position: int
    sample: int = 0
    seed: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition: float = 1.0
    presence: float = 0.0
    frequency: float = 0.0
    num_top: int = -1
    banned: Tensor = field(default_factory=_no_ids)
    mask: Tensor | None = None
    used: array = field(default_factory=_integers)
    counts: array = field(default_factory=_integers)
    bias_ids: array = field(default_factory=_integers)
    bias: array = field(default_factory=lambda: array("f"))


class Drawn(NamedTuple):
    """Tokens of the rows, on the CPU.

    Attributes:
        tokens_R: int64; `ALL_FORBIDDEN` or `NOT_FINITE` where there is none.
        logprobs_R: log-probability of the token; undefined where `num_top` is -1.
        best_RN: the most likely tokens that are not banned; -1 where there are no more.
        best_logprobs_RN: their log-probabilities.
    """

    tokens_R: Tensor
    logprobs_R: Tensor
    best_RN: Tensor
    best_logprobs_RN: Tensor


def sample_reference(logits_RV: Tensor, rows: Sequence[RowSettings]) -> Drawn:
    """Choose the token of each row.

    In this order: bans and mask, bias, repetition penalty (arXiv:1909.05858), frequency and
    presence penalties, temperature, top-k, top-p (arXiv:1904.09751), min-p (arXiv:2407.01082),
    typical-p (arXiv:2202.00666). Each filter sees the distribution that the one before left, and
    keeps the lower ids of equals. Log-probabilities are those of the logits as they come.
    """
    vocab, device = logits_RV.shape[1], logits_RV.device
    scores_RV = logits_RV.double()
    logprobs_RV = scores_RV.log_softmax(1)
    for row, scores in zip(rows, scores_RV, strict=True):
        scores[row.banned.to(device)] = -torch.inf
    width_R1 = torch.tensor([[max(0, row.num_top)] for row in rows], device=device)
    width = min(vocab, int(width_R1.max()))
    ordered_RV, order_RV = scores_RV.sort(dim=1, descending=True, stable=True)
    unlisted_RN = ordered_RV[:, :width] == -torch.inf
    unlisted_RN |= torch.arange(width, device=device) >= width_R1
    best_RN = order_RV[:, :width]
    best_logprobs_RN = logprobs_RV.gather(1, best_RN)
    for row, scores in zip(rows, scores_RV, strict=True):
        _adjust(row, scores)
    top_R = scores_RV.amax(1)
    kept_RV = _filtered(rows, scores_RV, top_R)
    noise_RV = gumbel(
        *([getattr(row, name) for row in rows] for name in ("seed", "position", "sample")),
        vocab,
        device,
    )
    greedy_R = torch.tensor([row.temperature == 0 for row in rows], device=device)
    drawn_R = torch.where(
        greedy_R, scores_RV.argmax(1), (kept_RV + noise_RV).nan_to_num(-torch.inf).argmax(1)
    )
    drawn_R[top_R == -torch.inf] = ALL_FORBIDDEN
    drawn_R[top_R.isnan() | (top_R == torch.inf)] = NOT_FINITE
    chosen_R = logprobs_RV.gather(1, drawn_R.clamp_min(0)[:, None])[:, 0]
    best_RN = best_RN.masked_fill(unlisted_RN, -1)
    results = (drawn_R, chosen_R.float(), best_RN, best_logprobs_RN.float())
    return Drawn(*(result.cpu() for result in results))


def _adjust(row: RowSettings, scores_V: Tensor) -> None:
    """Apply mask, bias and penalties; forbidden tokens stay so, no other becomes infinite."""
    device, most = scores_V.device, torch.finfo(torch.float32).max
    if row.mask is not None:
        bits = (row.mask[:, None] >> torch.arange(32)) & 1
        allowed = torch.zeros(len(scores_V), dtype=torch.bool)
        bits = bits.flatten()[: len(scores_V)].bool()
        allowed[: len(bits)] = bits
        scores_V[~allowed.to(device)] = -torch.inf
    forbidden = scores_V == -torch.inf
    if row.bias_ids:
        ids = torch.tensor(row.bias_ids, device=device)
        bias = torch.tensor(row.bias, dtype=torch.float64, device=device)
        scores_V[ids] = (scores_V[ids] + bias).clamp(-most, most)
    if row.used:
        ids = torch.tensor(row.used, device=device)
        counts = torch.tensor(row.counts, dtype=torch.float64, device=device)
        old = scores_V[ids]
        new = torch.where(old > 0, old / row.repetition, old * row.repetition).clamp(-most, most)
        new -= row.frequency * counts + row.presence * (counts > 0)
        scores_V[ids] = new.clamp(-most, most)
    scores_V[forbidden] = -torch.inf
    # the kernel keeps its scores in float32
    scores_V.copy_(scores_V.float())


def _filtered(rows: Sequence[RowSettings], scores_RV: Tensor, top_R: Tensor) -> Tensor:
    """The logarithm of each kept token's probability but for a constant; -inf for the others."""

    def column(name: str) -> Tensor:
        values = [float(getattr(row, name)) for row in rows]
        return torch.tensor(values, dtype=torch.float64, device=scores_RV.device)[:, None]

    heat = column("temperature")
    inverse = torch.where(heat > 0, 1 / heat, 1.0).clamp_max(1e300)
    z_RV = (scores_RV - top_R[:, None]) * inverse
    order_RV = scores_RV.sort(dim=1, descending=True, stable=True)[1]
    z_RV = z_RV.gather(1, order_RV)
    rank_V = torch.arange(z_RV.shape[1], device=z_RV.device)
    top_k = column("top_k")
    z_RV = z_RV.masked_fill((top_k > 0) & (rank_V >= top_k), -torch.inf)
    z_RV = _keep_mass(z_RV, column("top_p"))
    z_RV = z_RV.masked_fill(z_RV < column("min_p").log(), -torch.inf)
    restored_RV = torch.full_like(z_RV, -torch.inf).scatter(1, order_RV, z_RV)
    typical = column("typical_p")
    if any(row.typical_p < 1 for row in rows):
        restored_RV = _keep_typical(restored_RV, typical)
    return restored_RV


def _keep_mass(z_RV: Tensor, share: Tensor) -> Tensor:
    """Keep the shortest prefix with this share of the probability."""
    probs_RV = z_RV.softmax(1)
    before_RV = probs_RV.cumsum(1) - probs_RV
    dropped_RV = (before_RV >= share) & (share < 1)
    dropped_RV[:, 0] = False
    return z_RV.masked_fill(dropped_RV, -torch.inf)


def _keep_typical(z_RV: Tensor, share: Tensor) -> Tensor:
    """Keep the tokens whose information is nearest to the entropy."""
    logs_RV = z_RV.log_softmax(1)
    entropy_R1 = -torch.where(logs_RV > -torch.inf, logs_RV.exp() * logs_RV, 0.0).sum(
        1, keepdim=True
    )
    order_RV = (logs_RV + entropy_R1).abs().sort(dim=1, stable=True)[1]
    kept_RV = _keep_mass(z_RV.gather(1, order_RV), share)
    return torch.full_like(z_RV, -torch.inf).scatter(1, order_RV, kept_RV)


_INTEGERS = ("position", "sample", "seed", "top_k", "num_top")
_NUMBERS = ("temperature", "top_p", "min_p", "typical_p", "repetition", "presence", "frequency")
_LISTS = ("banned", "num_banned", "mask", "num_words", "used", "counts", "num_used")
_BIAS = ("bias_ids", "bias", "num_bias")


class _Row(ctypes.Structure):
    """As `Row` in sampling.cpp; addresses are integers."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in _INTEGERS),
        *((name, ctypes.c_double) for name in _NUMBERS),
        *((name, ctypes.c_int64) for name in (*_LISTS, *_BIAS)),
    )


def _pack(row: RowSettings) -> tuple[int | float, ...]:
    assert row.banned.dtype == torch.int64 and row.banned.is_contiguous()
    mask = row.mask
    assert mask is None or (mask.dtype == torch.int32 and mask.is_contiguous())
    used, num_used = row.used.buffer_info()
    bias_ids, num_bias = row.bias_ids.buffer_info()
    return (
        *(row.position, row.sample, row.seed, row.top_k, row.num_top),
        *(row.temperature, row.top_p, row.min_p, row.typical_p),
        *(row.repetition, row.presence, row.frequency),
        *(row.banned.data_ptr(), len(row.banned)),
        *((0, 0) if mask is None else (mask.data_ptr(), len(mask))),
        *(used, row.counts.buffer_info()[0], num_used),
        *(bias_ids, row.bias.buffer_info()[0], num_bias),
    )


def sample(logits_RV: Tensor, rows: Sequence[RowSettings]) -> Drawn:
    """Same as `sample_reference`, up to rounding; overwrites the logits, which must be float32."""
    assert logits_RV.dtype == torch.float32
    if not usable(logits_RV):
        return sample_reference(logits_RV, rows)
    logits_RV = logits_RV.contiguous()
    count, vocab = logits_RV.shape
    width = min(vocab, max(0, *(row.num_top for row in rows)))
    drawn = Drawn(
        torch.empty(count, dtype=torch.int64),
        torch.empty(count),
        torch.full((count, width), -1),
        torch.full((count, width), -math.inf),
    )
    packed = (_Row * count)(*(_pack(row) for row in rows))
    call(
        *("sample_f", logits_RV, ctypes.addressof(packed), count, vocab),
        *(drawn.tokens_R, drawn.logprobs_R, width, drawn.best_RN, drawn.best_logprobs_RN),
    )
    return drawn
