# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Compare training methods on the same documents with the same seeds.

A difference has two sources of noise. Which documents were held out: a paired bootstrap over them
gives the confidence interval. Which seed was used: all methods share the seeds, so what counts is
the interaction of method and seed; its spread over all methods and seeds gives the smallest
difference of two means that is not due to chance. A method is called worse only if it exceeds
both.
"""

import math
from dataclasses import dataclass

import numpy as np

from openllm.evaluate.perplexity import Interval, Totals, difference, intervals

# M methods, S seeds, D documents

MIN_DOCUMENTS = 10
"""Fewer documents give no meaningful interval."""
_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom."""


@dataclass(frozen=True)
class Standing:
    """How one training method does on one text.

    Attributes:
        bits: bits per byte, mean over seeds; the interval is over documents.
        seeds: bits per byte of each seed.
        behind: bits per byte above the best method, with its paired interval over documents.
        worse: it is worse than the best method, by more than documents and seeds explain.
    """

    bits: Interval
    seeds: tuple[float, ...]
    behind: Interval
    worse: bool


@dataclass(frozen=True)
class Comparison:
    """How all training methods do on one text.

    Attributes:
        standings: of each method.
        ranking: their indices, best first.
        limit: smallest difference of two means that seeds do not explain; None with only one
            seed or one method.
        documents: number of documents scored.
    """

    standings: tuple[Standing, ...]
    ranking: tuple[int, ...]
    limit: float | None
    documents: int


def compare(
    nll_MSD: np.ndarray, doc_bytes: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> Comparison:
    """Compare training methods by bits per byte on the same documents.

    Args:
        nll_MSD: nats of each document's text.
        doc_bytes: UTF-8 bytes of each text.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    bits_MS = nll_MSD.sum(axis=2) / (math.log(2) * doc_bytes.sum())
    ranking = tuple(np.argsort(bits_MS.mean(axis=1), kind="stable").tolist())
    limit = seed_limit(bits_MS)
    # only bits per byte are used, so tokens and words may be any positive numbers
    ones = np.ones(len(doc_bytes))
    totals = [Totals(nll_SD.mean(axis=0), ones, doc_bytes, ones) for nll_SD in nll_MSD]
    draws = {"resamples": resamples, "seed": seed}
    standings = []
    for own, bits_S in zip(totals, bits_MS, strict=True):
        behind = difference(own, totals[ranking[0]], **draws)["bits_per_byte"]
        beyond = behind.low > 0 and behind.value > (limit or 0)
        standings.append(
            Standing(
                intervals(own, **draws)["bits_per_byte"],
                tuple(bits_S.tolist()),
                behind,
                beyond and len(doc_bytes) >= MIN_DOCUMENTS,
            )
        )
    return Comparison(tuple(standings), ranking, limit, len(doc_bytes))


def seed_limit(bits_MS: np.ndarray) -> float | None:
    """Difference of two methods' means over seeds that 95 % of chance differences stay below."""
    freedom = (bits_MS.shape[0] - 1) * (bits_MS.shape[1] - 1)
    if not freedom:
        return None
    rest = bits_MS - bits_MS.mean(axis=1, keepdims=True) - bits_MS.mean(axis=0) + bits_MS.mean()
    variance = float((rest**2).sum()) / freedom
    return student_t(freedom) * math.sqrt(2 * variance / bits_MS.shape[1])


def student_t(freedom: int) -> float:
    """97.5 % quantile of Student's t, within one per cent."""
    return _T95[freedom - 1] if freedom <= len(_T95) else 1.96 + 2.5 / freedom
