# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Loss, perplexity and bits per byte of held-out documents, with bootstrap intervals.

Everything is computed from a model's log-probabilities of each token of each document, so that
a transformer and an n-gram model are measured by the same code. Only text counts: the first
token of a document, usually bos, is never predicted, and eos belongs to no byte of the text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# D documents, R resamples

MEASURES = ("loss", "token_perplexity", "bits_per_byte", "word_perplexity")
"""Nats per token; exp of that; bits per UTF-8 byte; exp of nats per whitespace-separated word."""


@dataclass(frozen=True)
class Totals:
    """A model's negative log-likelihood and the length of each document."""

    nll_D: np.ndarray  # float64: -log p (nats) summed over the tokens of the text
    tokens_D: np.ndarray
    bytes_D: np.ndarray
    words_D: np.ndarray

    def columns(self) -> np.ndarray:
        """(D, 4) float64."""
        parts = (self.nll_D, self.tokens_D, self.bytes_D, self.words_D)
        return np.stack([np.asarray(part, np.float64) for part in parts], axis=-1)


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def document_totals(
    logprobs: Sequence[np.ndarray], doc_bytes: Sequence[int], doc_words: Sequence[int]
) -> Totals:
    """Compute the totals of each document.

    Args:
        logprobs: for each document, log-probabilities in nats of `tokens[1:]`, eos last.
        doc_bytes: UTF-8 bytes of each text.
        doc_words: whitespace-separated words of each text.
    """
    nll = [-float(np.sum(document[:-1], dtype=np.float64)) for document in logprobs]
    tokens = [len(document) - 1 for document in logprobs]
    return Totals(np.array(nll), np.array(tokens), np.array(doc_bytes), np.array(doc_words))


def measures(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Compute `MEASURES` of sums (..., 4); a perplexity too large for a float is infinite."""
    nll, tokens, size, words = np.moveaxis(sums, -1, 0)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return {
            "loss": nll / tokens,
            "token_perplexity": np.exp(nll / tokens),
            "bits_per_byte": nll / (np.log(2) * size),
            "word_perplexity": np.exp(nll / words),
        }


def resample(columns: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums (R, K) over documents drawn with replacement from the rows of `columns` (D, K).

    The draws depend on `seed` and D alone: two models on the same documents share resamples,
    which makes the interval of their difference paired.
    """
    documents = len(columns)
    rng = np.random.default_rng(seed)
    at_once = max(1, 2_000_000 // documents)
    sums = []
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = rng.integers(0, documents, (rows, documents))
        sums.append(np.stack([column[drawn].sum(axis=1) for column in columns.T], axis=-1))
    return np.concatenate(sums)


def intervals(totals: Totals, *, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Each of `MEASURES` over all documents, with its percentile bootstrap interval."""
    columns = totals.columns()
    values = measures(columns.sum(axis=0))
    drawn = measures(resample(columns, resamples, seed))
    return {name: _interval(values[name], drawn[name]) for name in MEASURES}


def difference(
    model: Totals, baseline: Totals, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Compare `model` with `baseline` on the same documents, with paired intervals.

    Returns:
        The difference (model minus baseline) of each of `MEASURES`, and `reduction`: the
        fraction of the baseline's bits per byte that the model saves.
    """
    ours, theirs = model.columns(), baseline.columns()
    pairs = [(measures(ours.sum(axis=0)), measures(theirs.sum(axis=0)))]
    pairs.append(
        (measures(resample(ours, resamples, seed)), measures(resample(theirs, resamples, seed)))
    )
    found = {}
    for name in MEASURES:
        with np.errstate(invalid="ignore"):
            value, drawn = (mine[name] - other[name] for mine, other in pairs)
        found[name] = _interval(value, drawn)
    value, drawn = (1 - mine["bits_per_byte"] / other["bits_per_byte"] for mine, other in pairs)
    found["reduction"] = _interval(value, drawn)
    return found


def _interval(value: np.ndarray, drawn: np.ndarray) -> Interval:
    # No interpolation: it is undefined between two infinite values.
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
    return Interval(float(value), float(low), float(high))


def full_context_share(lengths: Sequence[int], context: int) -> float:
    """Fraction of text tokens predicted from all preceding tokens of their document.

    Args:
        lengths: tokens of each document with the first, usually bos, and eos.
        context: tokens read in a window; the last prediction is of the token behind them.
    """
    text = np.maximum(np.asarray(lengths) - 2, 0)
    return float(np.minimum(text, context).sum() / max(1, text.sum()))


def loss_by_position(
    logprobs: Mapping[str, Sequence[np.ndarray]], *, bins: int = 24, least: int = 30
) -> dict[str, list[float]]:
    """Mean loss by number of preceding tokens in the document, for several models at once.

    Args:
        logprobs: name of a model -> log-probabilities of `tokens[1:]` of each document, eos last.
        bins: number of position ranges; they widen with the position.
        least: minimum tokens for a range to be shown.

    Returns:
        `position` (geometric mean of each range's ends, counted from 1), `tokens` (count of
        each range), and for each model the mean loss in nats.
    """
    lengths = [len(document) - 1 for document in next(iter(logprobs.values()))]
    longest = max(lengths, default=0)
    if longest < 1:
        return {"position": [], "tokens": [], **{name: [] for name in logprobs}}
    edges = np.unique(np.geomspace(1, longest + 1, bins + 1).round().astype(int))
    positions = np.concatenate([np.arange(1, length + 1) for length in lengths])
    which = np.searchsorted(edges, positions, side="right") - 1
    counts = np.bincount(which, minlength=len(edges) - 1)
    shown = counts >= min(least, counts.max())
    middles = np.sqrt(edges[:-1] * (edges[1:] - 1.0))
    curve = {"position": middles[shown].tolist(), "tokens": counts[shown].tolist()}
    for name, documents in logprobs.items():
        loss = -np.concatenate([document[:-1] for document in documents]).astype(np.float64)
        sums = np.bincount(which, weights=loss, minlength=len(edges) - 1)
        curve[name] = (sums[shown] / counts[shown]).tolist()
    return curve
