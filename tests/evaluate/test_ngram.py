# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openllm.core.errors import DataError
from openllm.evaluate.ngram import FALLBACK_DISCOUNTS, KneserNey, _discounts

BOS, EOS, VOCAB = 1, 2, 12


class SlowKneserNey:
    """The definition, word by word, with dictionaries and recursion."""

    def __init__(self, segments: list[list[int]], order: int) -> None:
        raw: list[Counter] = [Counter() for _ in range(order + 1)]
        left: dict[tuple, set] = defaultdict(set)
        for segment in segments:
            for end in range(len(segment)):
                for n in range(1, min(order, end + 1) + 1):
                    begin = end - n + 1
                    ngram = tuple(segment[begin : end + 1])
                    raw[n][ngram] += 1
                    if begin > 0:
                        left[ngram].add(segment[begin - 1])
        while not raw[-1]:
            raw.pop()
        self.order = len(raw) - 1
        self.counts: dict[tuple, int] = {}
        self.discounts: dict[int, list[float]] = {}
        for n in range(1, self.order + 1):
            for ngram, occurrences in raw[n].items():
                exact = n == self.order or ngram[0] == BOS
                self.counts[ngram] = occurrences if exact else max(1, len(left[ngram]))
            if n == 1:
                self.counts.pop((BOS,), None)
            seen = Counter(c for g, c in self.counts.items() if len(g) == n)
            self.discounts[n] = [0.0, *FALLBACK_DISCOUNTS]
            if all(seen[k] for k in (1, 2, 3, 4)):
                y = seen[1] / (seen[1] + 2 * seen[2])
                found = [k - (k + 1) * y * seen[k + 1] / seen[k] for k in (1, 2, 3)]
                if min(found) > 0:
                    self.discounts[n] = [0.0, *found]

    def probability(self, history: tuple, token: int) -> float:
        history = history[max(0, len(history) - self.order + 1) :]
        lower = self.probability(history[1:], token) if history else 1 / VOCAB
        discounts = self.discounts[len(history) + 1]
        after = {
            g[-1]: c
            for g, c in self.counts.items()
            if len(g) == len(history) + 1 and g[:-1] == history
        }
        if not after:
            return lower
        total = sum(after.values())
        given_away = sum(discounts[min(c, 3)] for c in after.values())
        count = after.get(token, 0)
        return (count - discounts[min(count, 3)] + given_away * lower) / total


def corpus(seed: int, documents: int = 30, length: int = 14, cut: bool = True) -> list[list[int]]:
    """Documents of a sticky random walk; every fourth is the later piece of a cut document."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(documents):
        text = [int(rng.integers(3, VOCAB))]
        for _ in range(int(rng.integers(0, length))):
            step = int(rng.choice([0, 1, 1, 1, 2, 5]))
            text.append(3 + (text[-1] - 3 + step) % (VOCAB - 3))
        found.append([*text, EOS] if cut and index % 4 == 3 else [BOS, *text, EOS])
    return found


def train(segments: list[list[int]], order: int = 5) -> KneserNey:
    return KneserNey.train(
        [np.array(s) for s in segments], vocab_size=VOCAB, bos_id=BOS, order=order
    )


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("documents", [1, 30, 200])
def test_equals_the_definition(order: int, documents: int) -> None:
    segments = corpus(3, documents)
    slow, fast = SlowKneserNey(segments, order), train(segments, order)
    assert fast.order == slow.order
    heldout = [*corpus(4, 10, cut=False), [BOS, EOS], [BOS, 0, 0, 5]]
    for document, found in zip(heldout, fast.score([np.array(d) for d in heldout]), strict=True):
        expected = [
            np.log(slow.probability(tuple(document[:end]), document[end]))
            for end in range(1, len(document))
        ]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_some_orders_of_the_reference_corpora_estimate_their_discounts() -> None:
    estimated = [d for d in train(corpus(3, 200)).discounts if d != FALLBACK_DISCOUNTS]
    assert len(estimated) >= 3, "the comparison above must cover both ways to discounts"
    for one, two, more in estimated:
        assert 0 < one <= 1
        assert 0 < two <= 2
        assert 0 < more <= 3


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(3, VOCAB - 1), max_size=9), min_size=1, max_size=12),
    st.lists(st.integers(0, VOCAB - 1), max_size=7),
    st.integers(1, 6),
)
def test_sums_to_one_after_any_context(
    texts: list[list[int]], context: list[int], order: int
) -> None:
    model = train([[BOS, *text, EOS] for text in texts], order)
    for history in (context, [BOS, *context], [BOS, *texts[0]], []):
        chances = model.distribution(history)
        assert abs(chances.sum() - 1) < 1e-9
        assert chances.min() > 0


def test_distribution_and_score_agree() -> None:
    model = train(corpus(6, 60))
    for document in corpus(7, 8, cut=False):
        expected = [
            np.log(model.distribution(document[:end])[document[end]])
            for end in range(1, len(document))
        ]
        np.testing.assert_allclose(model.logprobs(np.array(document)), expected, atol=1e-12)


def test_ngrams_do_not_cross_segments() -> None:
    apart = train([[BOS, 4, 5, EOS], [6, 7, EOS]], order=2)
    # After eos nothing was ever seen: the distribution is that of single tokens.
    np.testing.assert_array_equal(apart.distribution([EOS]), apart.distribution([]))


def test_bos_is_context_and_never_predicted() -> None:
    model = train([[BOS, 4, EOS]] * 50 + [[BOS, 5, EOS]] * 10, order=3)
    after_bos = model.distribution([BOS])
    assert after_bos[4] > 4 * after_bos[5], "a document's beginning counts as often as it occurs"
    assert model.distribution([])[BOS] == model.distribution([])[0], "only the uniform share"


@pytest.mark.parametrize(
    "counts",
    [[1, 1, 1], [2, 2, 3, 4], [1] * 5 + [2] * 3 + [4], [1, 2, 3] + [4] * 50],
    ids=["all once", "none once", "none thrice", "estimate below zero"],
)
def test_discounts_fall_back(counts: list[int]) -> None:
    np.testing.assert_array_equal(_discounts(np.array(counts)), [0.0, *FALLBACK_DISCOUNTS])


def test_discounts_follow_the_formula() -> None:
    counts = np.repeat([1, 2, 3, 4, 9], [400, 100, 50, 25, 7])
    y = 400 / (400 + 2 * 100)
    expected = [0, 1 - 2 * y * 100 / 400, 2 - 3 * y * 50 / 100, 3 - 4 * y * 25 / 50]
    np.testing.assert_allclose(_discounts(counts), expected)


def test_a_corpus_of_one_repeated_token_still_gives_every_token_a_chance() -> None:
    model = train([[BOS, 5, 5, 5, 5, EOS]])
    chances = model.distribution([5, 5, 5])
    assert chances.argmax() == 5
    assert chances.min() > 0
    assert abs(chances.sum() - 1) < 1e-9


def test_empty_text_and_foreign_tokens_are_refused() -> None:
    with pytest.raises(DataError, match="no tokens"):
        train([])
    with pytest.raises(DataError, match="outside the vocabulary"):
        train([[BOS, VOCAB]])
    with pytest.raises(DataError, match="another tokenizer"):
        train([[BOS, 4, EOS]]).logprobs(np.array([BOS, VOCAB + 3]))


def test_more_order_helps_on_structured_text() -> None:
    segments = corpus(8, 400, 30, cut=False)
    heldout = [np.array(d) for d in corpus(9, 40, 30, cut=False)]

    def loss(order: int) -> float:
        return -float(np.concatenate(train(segments, order).score(heldout)).mean())

    assert loss(1) > loss(2) + 0.1
