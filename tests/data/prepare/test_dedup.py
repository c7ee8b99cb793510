# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openllm.data.prepare.dedup import (
    BANDS,
    SHINGLE,
    Clusters,
    exact_duplicates,
    jaccard,
    minhash,
    near_duplicates,
    shingle_set,
)
from openllm.data.prepare.ngrams import ngrams, split_words

WORDS = [f"word{i}" for i in range(5000)]


def similarity(one: str, two: str) -> float:
    """Jaccard similarity of word 5-grams, computed without hashes."""
    sets = []
    for text in (one, two):
        words = text.lower().split()
        sets.append({tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - 4))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def variant(text: str, edits: int, draw: random.Random) -> str:
    words = text.split()
    for place in draw.sample(range(len(words)), edits):
        words[place] = draw.choice(WORDS)
    return " ".join(words)


@pytest.fixture
def corpus():
    """Forty texts, each with variants of 0 to 14 changed words of 300."""
    draw = random.Random(3)
    texts = []
    for _ in range(40):
        base = " ".join(draw.choices(WORDS, k=300))
        texts += [base] + [variant(base, edits, draw) for edits in (0, 1, 3, 5, 8, 14)]
    return texts


def found_near(texts: list[str], folder, threshold: float = 0.8) -> np.ndarray:
    signatures, bands = minhash(ngrams(split_words(texts), SHINGLE, whole=True))
    (folder / "signatures.u8").write_bytes(signatures.tobytes())
    for number, values in enumerate(bands):
        (folder / f"band-{number:02d}.u64").write_bytes(values.tobytes())
    alive = np.ones(len(texts), dtype=bool)
    return near_duplicates(folder, alive, np.arange(len(texts)), threshold, texts.__getitem__)


def components(texts: list[str], threshold: float) -> list[int]:
    """For each text, the first one of its cluster, by comparing all pairs."""
    first = list(range(len(texts)))
    for i, j in combinations(range(len(texts)), 2):
        if i // 7 == j // 7 and similarity(texts[i], texts[j]) >= threshold:
            low, high = sorted((first[i], first[j]))
            first = [low if item == high else item for item in first]
    return first


@pytest.mark.integration
@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.9, 1.0])
def test_near_duplicates_are_those_of_all_pairs(corpus, tmp_path, threshold):
    expected = components(corpus, threshold)
    found = found_near(corpus, tmp_path, threshold)
    assert [i if kept < 0 else kept for i, kept in enumerate(found.tolist())] == expected


def test_signatures_estimate_similarity(corpus):
    signatures, _ = minhash(ngrams(split_words(corpus), SHINGLE, whole=True))
    errors = []
    for i in range(0, len(corpus), 7):
        for j in range(i + 1, i + 7):
            estimate = np.mean(signatures[i] == signatures[j])
            errors.append(estimate - similarity(corpus[i], corpus[j]))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.045, "as of 128 independent draws"


def test_bands_and_signatures_do_not_depend_on_the_batch(corpus):
    signatures, bands = minhash(ngrams(split_words(corpus[:9]), SHINGLE, whole=True))
    assert bands.shape == (BANDS, 9)
    for i, text in enumerate(corpus[:9]):
        alone = minhash(ngrams(split_words([text]), SHINGLE, whole=True))
        assert signatures[i].tolist() == alone[0][0].tolist()
        assert bands[:, i].tolist() == alone[1][:, 0].tolist()


def test_short_texts_are_compared_whole(tmp_path):
    texts = ["Yes, it is.", "yes it is", "no it is", "是的。", "是的"]
    assert found_near(texts, tmp_path).tolist() == [-1, 0, -1, -1, 3]


def test_of_equal_texts_the_lowest_rank_is_kept():
    hashes = np.array([[1, 2], [3, 4], [1, 2], [1, 5], [1, 2]], dtype=np.uint64)
    rank = np.array([4, 1, 3, 2, 0])
    assert exact_duplicates(hashes, rank).tolist() == [4, -1, 4, -1, -1]


def test_the_lowest_rank_of_a_cluster_is_kept(corpus, tmp_path):
    texts = corpus[:3]
    signatures, bands = minhash(ngrams(split_words(texts), SHINGLE, whole=True))
    (tmp_path / "signatures.u8").write_bytes(signatures.tobytes())
    for number, values in enumerate(bands):
        (tmp_path / f"band-{number:02d}.u64").write_bytes(values.tobytes())
    alive = np.array([True, False, True])
    rank = np.array([2, 0, 1])
    found = near_duplicates(tmp_path, alive, rank, 0.8, texts.__getitem__)
    assert found.tolist() == [2, -1, -1], "a text that is out already keeps nobody company"


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_clusters_are_connected_components(pairs):
    clusters = Clusters(20, np.arange(20)[::-1].copy())
    expected = list(range(20))
    for i, j in pairs:
        clusters.join(i, j)
        high, low = max(expected[i], expected[j]), min(expected[i], expected[j])
        expected = [high if item == low else item for item in expected]
    assert clusters.roots().tolist() == expected


def test_jaccard():
    assert jaccard(shingle_set("a b c d e f"), shingle_set("a b c d e g")) == pytest.approx(1 / 3)
    assert jaccard(np.zeros(0, np.uint64), np.zeros(0, np.uint64)) == 0
