# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The only place that scores tokens: log-probabilities of documents under a model."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from openllm.nn.context import AttentionContext
from openllm.nn.heads import token_logprobs
from openllm.nn.model import Transformer
from openllm.transform.precision import Precision, arithmetic


class Scores(NamedTuple):
    """For each token after the first: log-probability in nats, and whether it is the argmax."""

    logprobs: NDArray[np.float64]
    is_argmax: NDArray[np.bool_]


class _Window(NamedTuple):
    """Reads tokens [start, end) of a document and scores [first, end].

    The state of the last token read predicts the next one.
    """

    document: int
    start: int
    first: int
    end: int


def _windows(lengths: Sequence[int], context: int, stride: int) -> list[_Window]:
    windows = []
    for document, length in enumerate(lengths):
        start, first = 0, 1
        while first < length:
            end = min(start + context, length - 1)
            windows.append(_Window(document, start, first, end))
            first, start = end + 1, start + stride
    return windows


@torch.no_grad()
def score_documents(
    model: Transformer,
    documents: Sequence[NDArray[np.integer]],
    *,
    context: int,
    stride: int | None = None,
    batch_tokens: int = 8192,
    precision: Precision = "fp32",
) -> list[Scores]:
    """Score each document's tokens given the tokens before them in the document.

    A document longer than `context` is read in windows that start every `stride` tokens; each
    token is scored once, in the first window that predicts it, so after the first window it sees
    more than `context - stride` earlier tokens.

    Args:
        model: its mode (training or evaluation) is restored.
        documents: token ids; all but the first of each are scored.
        context: maximum tokens per window.
        stride: default: half the context.
        batch_tokens: approximate tokens per forward pass.
        precision: of the matrix products.
    """
    stride = max(1, context // 2) if stride is None else stride
    if not 0 < stride <= context:
        raise ValueError(f"stride={stride} must be between 1 and context={context}")
    windows = _windows([len(document) for document in documents], context, stride)
    windows.sort(key=lambda window: (window.start - window.end, window.document, window.start))
    sizes = [max(0, len(document) - 1) for document in documents]
    scores = [Scores(np.zeros(size), np.zeros(size, dtype=bool)) for size in sizes]
    training = model.training
    model.eval()
    try:
        for group in _groups(windows, batch_tokens):
            _score_group(model, documents, group, scores, precision)
    finally:
        model.train(training)
    return scores


def _groups(windows: list[_Window], batch_tokens: int) -> list[list[_Window]]:
    groups: list[list[_Window]] = []
    room = 0
    for window in windows:
        size = window.end - window.start
        if not groups or size > room:
            groups.append([])
            room = max(batch_tokens, size)
        groups[-1].append(window)
        room -= size
    return groups


def _score_group(
    model: Transformer,
    documents: Sequence[NDArray[np.integer]],
    group: list[_Window],
    scores: list[Scores],
    precision: Precision,
) -> None:
    """Run the windows as one packed row and store their scores."""
    head = model.head
    device = head.weight.device
    pieces = [documents[w.document][w.start : w.end].astype(np.int64) for w in group]
    tokens = torch.from_numpy(np.concatenate(pieces))[None].to(device)
    wanted = [documents[w.document][w.first : w.end + 1].astype(np.int64) for w in group]
    targets = torch.from_numpy(np.concatenate(wanted)).to(device)
    positions = torch.cat([torch.arange(len(piece)) for piece in pieces])[None].to(device)
    borders = tuple(accumulate((len(piece) for piece in pieces), initial=0))
    # the state of token t - 1 predicts token t
    rows = torch.cat(
        [
            torch.arange(border + w.first - 1 - w.start, border + w.end - w.start)
            for border, w in zip(borders, group, strict=False)
        ]
    ).to(device)
    with arithmetic(precision, device.type):
        hidden = model(tokens, positions=positions, attn=AttentionContext(borders))
        logprobs, hits = token_logprobs(hidden.x[0, rows], head, targets)
    # to the CPU first: MPS has no float64
    logprobs, hits = logprobs.cpu().double(), hits.cpu()
    at = 0
    for window in group:
        count = window.end + 1 - window.first
        place = slice(window.first - 1, window.end)
        scores[window.document].logprobs[place] = logprobs[at : at + count].numpy()
        scores[window.document].is_argmax[place] = hits[at : at + count].numpy()
        at += count
