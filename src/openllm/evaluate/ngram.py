# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The baseline for every model: a modified Kneser-Ney n-gram model of token ids.

Interpolated, three discounts per order, exact counts (no hashing, no pruning): Chen & Goodman
1998, "An Empirical Study of Smoothing Techniques for Language Modeling", Harvard TR-10-98,
section 3. The lowest order is interpolated with the uniform distribution, so that every token of
the vocabulary has nonzero probability.

Storage: the id of an n-gram is its rank among all n-grams of its length, and its key is
`id of its first n-1 tokens * vocab_size + last token`. One sorted array of keys per order then
answers "is this n-gram known?" by binary search, for all tokens of many documents at once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from openllm.core.errors import DataError

# M n-grams of one order, C contexts (n-grams of the order below), T tokens, V vocabulary

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""For counts of 1, 2 and 3 or more, if an order's counts allow no estimate."""


@dataclass(frozen=True)
class _Order:
    """The n-grams of one length."""

    keys_M: np.ndarray  # int64, sorted: context id * vocab_size + token
    counts_M: np.ndarray  # int32: occurrences, or distinct left neighbours below the top order
    totals_C: np.ndarray  # float64: counts summed over the continuations of each context
    backoff_C: np.ndarray  # float64: weight that each context gives to the order below
    discounts: np.ndarray  # float64 (4,): discount of a count of 0, 1, 2, 3 or more

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Ids of the n-grams with these keys, -1 if unknown."""
        ids = np.minimum(np.searchsorted(self.keys_M, keys), len(self.keys_M) - 1)
        return np.where(self.keys_M[ids] == keys, ids, -1)

    def mix(self, contexts: np.ndarray, ids: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """Interpolate this order's probability with the lower order's; -1 marks an unknown id."""
        counts = np.where(ids >= 0, self.counts_M[ids], 0)
        kept = counts - self.discounts[np.minimum(counts, 3)]
        known = (contexts >= 0) & (self.totals_C[contexts] > 0)
        totals = np.where(known, self.totals_C[contexts], 1.0)
        return np.where(known, kept / totals + self.backoff_C[contexts] * lower, lower)


class KneserNey:
    """An interpolated modified Kneser-Ney model; build it with `KneserNey.train`."""

    def __init__(self, orders: Sequence[_Order], vocab_size: int, tokens: int) -> None:
        self._orders = tuple(orders)
        self.vocab_size = vocab_size
        self.tokens = tokens

    @classmethod
    def train(
        cls, segments: Iterable[np.ndarray], *, vocab_size: int, bos_id: int | None, order: int = 5
    ) -> "KneserNey":
        """Count the n-grams of `segments`.

        Args:
            segments: token ids; each is a contiguous piece of one document and starts with
                `bos_id` if it starts the document. No n-gram crosses from one to the next.
            vocab_size: number of token ids.
            bos_id: serves as context; it is never predicted, so it has no count of its own.
                None: documents begin without it.
            order: maximum n-gram length.

        Raises:
            DataError: no tokens, or one outside the vocabulary.
        """
        tokens, depth = _join(segments, vocab_size)
        begin = -1 if bos_id is None else bos_id
        keys_of: list[np.ndarray] = []
        counts_of: list[np.ndarray] = []
        ids = np.zeros(len(tokens), np.int32)
        from_bos = np.zeros(1, bool)
        for length in range(1, order + 1):
            ends = np.flatnonzero(depth >= length - 1)
            if not len(ends):
                break
            contexts = ids[ends - 1].astype(np.int64) if length > 1 else 0
            keys, occurrences, examples, inverse = _unique(contexts * vocab_size + tokens[ends])
            if counts_of:
                # Count distinct left neighbours. Nothing precedes a document, so n-grams that
                # start with bos keep their occurrence counts; one seen only at the start of a
                # cut document has one neighbour, which is unknown.
                neighbours = np.bincount(ids[ends[examples]], minlength=len(counts_of[-1]))
                neighbours = np.maximum(neighbours, 1)
                counts_of[-1] = np.where(from_bos, counts_of[-1], neighbours).astype(np.int32)
            keys_of.append(keys)
            counts_of.append(occurrences)
            from_bos = tokens[ends[examples] - (length - 1)] == begin
            ids = np.full(len(tokens), -1, np.int32)
            ids[ends] = inverse
        counts_of[0][keys_of[0] == begin] = 0
        sizes = [1, *(len(keys) for keys in keys_of)]
        orders = [
            _build(keys, counts, contexts, vocab_size)
            for keys, counts, contexts in zip(keys_of, counts_of, sizes, strict=False)
        ]
        return cls(orders, vocab_size, len(tokens))

    @property
    def order(self) -> int:
        """Length of the longest n-grams (shorter than requested if all segments are)."""
        return len(self._orders)

    @property
    def discounts(self) -> list[tuple[float, float, float]]:
        """The three discounts of each order, from 1 upwards."""
        return [tuple(order.discounts[1:].tolist()) for order in self._orders]  # pyrefly: ignore

    @property
    def sizes(self) -> list[int]:
        """Number of distinct n-grams of each order, from 1 upwards."""
        return [len(order.keys_M) for order in self._orders]

    def logprobs(self, document: np.ndarray) -> np.ndarray:
        """Log-probabilities (nats, float64) of `document[1:]`; `document[0]` is context only."""
        return self.score([document])[0]

    def score(self, documents: Sequence[np.ndarray]) -> list[np.ndarray]:
        """`logprobs` of many documents at once.

        Raises:
            DataError: a token is outside the vocabulary.
        """
        if not documents:
            return []
        tokens, depth = _join(documents, self.vocab_size)
        probability = np.full(len(tokens), 1.0 / self.vocab_size)
        contexts = np.zeros(len(tokens), np.int64)
        for length, order in enumerate(self._orders, start=1):
            keys = np.where(contexts >= 0, contexts * self.vocab_size + tokens, -1)
            ids = order.find(keys)
            ids[depth < length - 1] = -1
            probability = order.mix(contexts, ids, probability)
            contexts = np.concatenate([[-1], ids[:-1]])
            contexts[depth < length] = -1
        ends = np.cumsum([len(document) for document in documents])
        pieces = np.split(np.log(probability), ends[:-1])
        return [piece[1:] for piece in pieces]

    def distribution(self, context: Sequence[int] | np.ndarray) -> np.ndarray:
        """Probabilities (V,) of the token after `context`, a piece of one document."""
        history = np.asarray(context, np.int64)
        probability = np.full(self.vocab_size, 1.0 / self.vocab_size)
        for length, order in enumerate(self._orders, start=1):
            if length - 1 > len(history):
                break
            node = self._id_of(history[len(history) - (length - 1) :])
            if node < 0 or order.totals_C[node] == 0:
                break
            low, high = np.searchsorted(
                order.keys_M, [node * self.vocab_size, (node + 1) * self.vocab_size]
            )
            counts = order.counts_M[low:high]
            kept = (counts - order.discounts[np.minimum(counts, 3)]) / order.totals_C[node]
            probability = order.backoff_C[node] * probability
            probability[order.keys_M[low:high] - node * self.vocab_size] += kept
        return probability

    def _id_of(self, ngram: np.ndarray) -> int:
        """Id of an n-gram among those of its length, -1 if unknown."""
        node = 0
        for order, token in zip(self._orders, ngram, strict=False):
            if node >= 0:
                node = int(order.find(np.array([node * self.vocab_size + int(token)]))[0])
        return node


def _join(segments: Iterable[np.ndarray], vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """All tokens concatenated (int32), and how many tokens of its segment precede each."""
    pieces = [np.asarray(segment, np.int32) for segment in segments if len(segment)]
    if not pieces:
        raise DataError("there are no tokens to build n-grams from: the training text is empty")
    tokens = np.concatenate(pieces)
    if int(tokens.max()) >= vocab_size or int(tokens.min()) < 0:
        raise DataError(
            f"token {int(tokens.max())} is outside the vocabulary of size {vocab_size}; "
            "the text was tokenised with another tokenizer"
        )
    lengths = np.array([len(piece) for piece in pieces])
    begins = np.cumsum(lengths) - lengths
    depth = np.arange(len(tokens), dtype=np.int32) - np.repeat(begins.astype(np.int32), lengths)
    return tokens, depth


def _unique(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sorted distinct keys (M,), their counts (M,), a position of each (M,), ranks (T,)."""
    by_key = np.argsort(keys).astype(np.int32)
    keys = keys[by_key]
    first = np.empty(len(keys), bool)
    first[0] = True
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    ranks = np.empty(len(keys), np.int32)
    ranks[by_key] = np.cumsum(first, dtype=np.int32) - 1
    begins = np.flatnonzero(first)
    counts = np.diff(begins, append=len(keys)).astype(np.int32)
    return keys[begins], counts, by_key[begins], ranks


def _build(keys: np.ndarray, counts: np.ndarray, contexts: int, vocab_size: int) -> _Order:
    discounts = _discounts(counts)
    context_of = keys // vocab_size
    totals = np.bincount(context_of, weights=counts, minlength=contexts)
    taken = np.bincount(context_of, weights=discounts[np.minimum(counts, 3)], minlength=contexts)
    backoff = np.divide(taken, totals, out=np.ones(contexts), where=totals > 0)
    return _Order(keys, counts, totals, backoff, discounts)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """Discounts of counts of 0, 1, 2, 3 and more: Chen & Goodman 1998, equation 17.

    The estimate needs n-grams that occur 1, 2, 3 and 4 times, and must lie within (0, count];
    otherwise the order uses `FALLBACK_DISCOUNTS`.
    """
    n1, n2, n3, n4 = (np.bincount(counts[counts <= 4], minlength=5)[1:5]).tolist()
    if min(n1, n2, n3, n4) > 0:
        y = n1 / (n1 + 2 * n2)
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if min(found) > 0:
            return np.array([0.0, *found])
    return np.array([0.0, *FALLBACK_DISCOUNTS])
