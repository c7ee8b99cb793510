# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Quality of generated text, with the same measures on held-out text for reference.

Each prompt is the beginning of a held-out document, whose true continuation serves as the
reference: it is cut to the length of the sample and measured the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openllm.evaluate.copies import Copy, longest_copies


@dataclass(frozen=True)
class Prompt:
    """The beginning of a held-out document, and its continuation."""

    document: int
    tokens: np.ndarray
    rest: np.ndarray


def choose_prompts(
    documents: Sequence[np.ndarray], count: int, *, length: int, seed: int
) -> list[Prompt]:
    """Draw the beginnings of up to `count` documents, without replacement.

    Args:
        documents: token ids without bos and eos.
        count: how many to draw.
        length: tokens of each prompt; a document must be at least twice as long.
        seed: for the draw.
    """
    long_enough = [i for i, document in enumerate(documents) if len(document) >= 2 * length]
    order = np.random.default_rng(seed).permutation(len(long_enough))[:count]
    chosen = (long_enough[i] for i in order)
    return [Prompt(i, documents[i][:length], documents[i][length:]) for i in chosen]


def distinct(texts: Sequence[np.ndarray], n: int) -> float:
    """Distinct n-grams over all texts divided by all n-grams (distinct-n, arXiv:1510.03055)."""
    windows = [_windows(text, n) for text in texts]
    total = sum(len(rows) for rows in windows)
    return len(np.unique(np.concatenate(windows), axis=0)) / total if total else 0.0


def repetition(text: np.ndarray, n: int = 4) -> float:
    """Fraction of a text's n-grams that occurred earlier in it (seq-rep-n, arXiv:1908.04319)."""
    windows = _windows(text, n)
    return 1 - len(np.unique(windows, axis=0)) / len(windows) if len(windows) else 0.0


def _windows(text: np.ndarray, n: int) -> np.ndarray:
    """All n-grams of a text, (N, n)."""
    text = np.asarray(text, np.int64)
    if len(text) < n:
        return np.empty((0, n), np.int64)
    return np.lib.stride_tricks.sliding_window_view(text, n)


@dataclass(frozen=True)
class TextQuality:
    """Measures of a set of texts, all counted in tokens."""

    texts: int
    tokens: int
    distinct_1: float
    distinct_2: float
    distinct_3: float
    repeated_4: float
    copy_mean: float | None
    copy_max: int | None


def text_quality(
    texts: Sequence[np.ndarray], training: np.ndarray | None
) -> tuple[TextQuality, list[Copy]]:
    """Compute all measures, and the longest copy in each text.

    Args:
        texts: token ids without bos and eos.
        training: all training tokens, concatenated; None: copies are not measured.
    """
    copies = [] if training is None else longest_copies(texts, training)
    lengths = [copy.length for copy in copies]
    quality = TextQuality(
        texts=len(texts),
        tokens=sum(len(text) for text in texts),
        distinct_1=distinct(texts, 1),
        distinct_2=distinct(texts, 2),
        distinct_3=distinct(texts, 3),
        repeated_4=float(np.mean([repetition(text) for text in texts])) if len(texts) else 0.0,
        copy_mean=float(np.mean(lengths)) if lengths else None,
        copy_max=max(lengths) if lengths else None,
    )
    return quality, copies
