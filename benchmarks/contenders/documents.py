# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Batches of one step each: random tokens, packed rows, padded documents, an unbroken stream."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from contenders.job import Job
from openllm.data.loader import IGNORE, Batch
from openllm.data.packing import Piece
from openllm.data.shards import Shards
from openllm.recipes.build import build_loader

RANDOM_BATCHES = 4


Loader = Callable[[int], list[Batch]]
"""From a step to its batches."""


class RandomLoader:
    """Random tokens, each row one document, generated before timing starts."""

    def __init__(self, job: Job) -> None:
        draw = np.random.default_rng(0)
        shape = (job.rows, job.seq_len + 1)
        drawn = (draw.integers(job.vocab_size, size=shape) for _ in range(RANDOM_BATCHES))
        self._batches = [_whole_rows(ids[:, :-1].copy(), ids[:, 1:].copy()) for ids in drawn]

    def step(self, step: int) -> list[Batch]:
        """Return one of a few batches, in turn."""
        return [self._batches[step % RANDOM_BATCHES]]


class PaddedLoader:
    """Shuffled documents, one per row, padded to the longest of the batch.

    Documents longer than a row continue in another row, as in packing. A batch has as many rows
    as make up the tokens of a step on average.
    """

    def __init__(self, shards: Shards, job: Job) -> None:
        self._shards = shards
        lengths = np.diff(shards.offsets.astype(np.int64))
        order = np.random.default_rng(0).permutation(len(lengths))
        self._pieces = [
            Piece(int(document), start, min(start + job.seq_len, int(lengths[document])))
            for document in order
            for start in range(0, int(lengths[document]), job.seq_len)
        ]
        self._rows = max(1, round(job.tokens * len(self._pieces) / int(lengths.sum())))

    def step(self, step: int) -> list[Batch]:
        """Return the next documents."""
        numbers = range(step * self._rows, (step + 1) * self._rows)
        pieces = [self._pieces[number % len(self._pieces)] for number in numbers]
        shape = (len(pieces), max(piece.end - piece.start for piece in pieces))
        tokens, targets = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
        for row, piece in enumerate(pieces):
            document = self._shards.document(piece.document)
            tokens[row, : piece.end - piece.start] = document[piece.start : piece.end]
            following = document[piece.start + 1 : piece.end + 1]
            targets[row, : len(following)] = following
        return [_whole_rows(tokens, targets)]


class StreamLoader:
    """Documents concatenated in order and cut into rows; tokens see earlier documents."""

    def __init__(self, shards: Shards, job: Job) -> None:
        self._tokens, self._shape = shards.tokens, (job.rows, job.seq_len)
        self._steps = (len(shards.tokens) - 1) // job.tokens

    def step(self, step: int) -> list[Batch]:
        """Return the next tokens."""
        size = self._shape[0] * self._shape[1]
        start = step % self._steps * size
        ids = self._tokens[start : start + size + 1].astype(np.int64)
        return [_whole_rows(ids[:-1].reshape(self._shape), ids[1:].reshape(self._shape))]


def _whole_rows(tokens: NDArray[np.int64], targets: NDArray[np.int64]) -> Batch:
    rows, time = tokens.shape
    positions = np.broadcast_to(np.arange(time), tokens.shape).copy()
    return Batch(tokens, targets, positions, tuple(range(0, rows * time + 1, time)))


def build(name: str, job: Job) -> Loader:
    """Build the loader of a contender."""
    if job.shards is None or job.fingerprint is None:
        return RandomLoader(job).step
    shards = Shards.open(job.shards, "train", job.fingerprint)
    layout = name.removesuffix("-compiled").partition("-")[2]
    if layout == "padded":
        return PaddedLoader(shards, job).step
    if layout == "stream":
        return StreamLoader(shards, job).step
    packed = build_loader(job.recipe(), shards)
    return lambda step: packed.batches(step * job.rows, (step + 1) * job.rows)
