# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""How far the predictions of a changed model are from those of the original."""

# R rows (tokens that predict another), D model, V vocabulary

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from openllm.nn.context import AttentionContext
from openllm.nn.heads import Head, logits
from openllm.nn.model import Transformer

LOGITS = 2**23
"""Computed at a time."""


class Change(NamedTuple):
    """What a change does to a model, on one text.

    Attributes:
        bits_per_byte: of the changed model.
        added: its bits per byte minus the original's; by chance it may be below zero.
        divergence: Kullback-Leibler divergence from the original's predictions, in bits per byte:
            what the change would cost on text that the original had written. Never below zero, and
            much less noisy.
    """

    bits_per_byte: float
    added: float
    divergence: float


class Divergence:
    """Compares changed models with an original, whose hidden states of a text are kept.

    Args:
        model: the original.
        documents: token ids; all but the first of each are predicted.
        text_bytes: what the documents are in UTF-8.
        context: longest document; the rest of longer ones is left out.
        batch_tokens: approximate tokens per forward pass.
    """

    def __init__(
        self,
        model: Transformer,
        documents: Sequence[np.ndarray],
        text_bytes: Sequence[int],
        *,
        context: int,
        batch_tokens: int = 4096,
    ) -> None:
        kept = [document[: context + 1].astype(np.int64) for document in documents]
        shares = zip(kept, documents, text_bytes, strict=True)
        # of a document that is cut, as many bytes as tokens
        self.bytes = sum(size * len(cut) / len(whole) for cut, whole, size in shares)
        self.tokens = sum(len(document) - 1 for document in kept)
        self._batches = [_Batch.pack(group) for group in _groups(kept, batch_tokens)]
        self._states = [batch.states(model) for batch in self._batches]
        head = model.head
        self._head = Head(head.weight.detach().clone(), head.softcap)
        self.bits_per_byte = self._measure(self._states, self._head)[0]

    @torch.no_grad()
    def of(self, model: Transformer) -> Change:
        """What makes this model different from the original."""
        states = [batch.states(model) for batch in self._batches]
        bits, divergence = self._measure(states, model.head)
        return Change(bits, bits - self.bits_per_byte, divergence)

    @torch.no_grad()
    def _measure(self, states: Sequence[Tensor], head: Head) -> tuple[float, float]:
        """Bits per byte, and divergence from the original."""
        nats = divergence = 0.0
        rows = max(1, LOGITS // head.weight.shape[0])
        for batch, mine, theirs in zip(self._batches, states, self._states, strict=True):
            pieces = (tensor.split(rows) for tensor in (mine, theirs, batch.targets))
            for x_RD, original_RD, targets_R in zip(*pieces, strict=True):
                log_RV = logits(x_RD, head).log_softmax(-1)
                nats -= float(log_RV.gather(1, targets_R[:, None]).double().sum())
                if states is not self._states:
                    wanted_RV = logits(original_RD, self._head).log_softmax(-1)
                    gap = wanted_RV.exp() * (wanted_RV - log_RV)
                    divergence += float(gap.double().sum())
        scale = math.log(2) * self.bytes
        return nats / scale, max(0.0, divergence / scale)  # rounding may take it below


class _Batch(NamedTuple):
    """Documents in one row; each token but the last of a document predicts the next."""

    tokens: Tensor
    positions: Tensor
    targets: Tensor
    borders: tuple[int, ...]

    @classmethod
    def pack(cls, documents: Sequence[np.ndarray]) -> "_Batch":
        read = [torch.from_numpy(document[:-1]) for document in documents]
        return cls(
            torch.cat(read)[None],
            torch.cat([torch.arange(len(tokens)) for tokens in read])[None],
            torch.cat([torch.from_numpy(document[1:]) for document in documents]),
            tuple(accumulate((len(tokens) for tokens in read), initial=0)),
        )

    @torch.no_grad()
    def states(self, model: Transformer) -> Tensor:
        """(R, D)."""
        context = AttentionContext(self.borders)
        return model(self.tokens, positions=self.positions, attn=context).x[0]


def _groups(documents: Sequence[np.ndarray], size: int) -> list[list[np.ndarray]]:
    groups: list[list[np.ndarray]] = []
    room = 0
    for document in documents:
        if len(document) < 2:
            continue
        if not groups or len(document) > room:
            groups.append([])
            room = max(size, len(document))
        groups[-1].append(document)
        room -= len(document)
    return groups
