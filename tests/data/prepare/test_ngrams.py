# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from openllm.data.prepare.ngrams import distinct, gram_text, ngrams, split_words

TEXTS = st.lists(st.text("ab é.,\n漢字กขम्1", max_size=40), min_size=1, max_size=5)


def plain_words(text: str) -> list[str]:
    """The definition of a word, reimplemented without arrays."""
    return re.findall(r"[漢字กข]|[abé\u092e\u094d1]+", text.lower())


def weight(word: str) -> int:
    return {"漢": 2, "字": 2, "ก": 1, "ข": 1}.get(word, 4)


def plain_grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = plain_words(text)
    found = []
    for i in range(len(words)):
        for j in range(i, len(words)):
            if sum(map(weight, words[i : j + 1])) >= 4 * n:
                found.append(tuple(words[i : j + 1]))
                break
    return found


def test_words_of_several_scripts():
    texts = ["Don't STOP, 2nd street", "今天天气", "ภาษาไทย", "हिन्दी में", ""]
    words = split_words(texts)
    found = [words.text[a:b] for a, b in zip(words.starts, words.ends, strict=True)]
    assert found[:5] == ["don", "t", "stop", "2nd", "street"]
    assert found[-2:] == ["हिन्दी", "में"], "combining marks belong to their word"
    assert words.counts().tolist() == [5, 2, 1, 2, 0]
    assert np.diff(words.bounds).tolist() == [5, 4, 7, 2, 0]


@given(TEXTS)
def test_equal_words_and_only_equal_words_have_equal_hashes(texts):
    words = split_words(texts)
    expected = [word for text in texts for word in plain_words(text)]
    assert len(words.hashes) == len(expected)
    by_hash: dict[int, str] = {}
    for value, word in zip(words.hashes.tolist(), expected, strict=True):
        assert by_hash.setdefault(value, word) == word
    assert len(by_hash) == len(set(expected))


@given(TEXTS, st.integers(1, 4), st.integers(0, 3))
def test_ngrams_are_those_of_the_definition(texts, n, seed):
    grams = ngrams(split_words(texts), n, seed=seed)
    expected = [plain_grams(text, n) for text in texts]
    assert np.diff(grams.bounds).tolist() == [len(found) for found in expected]
    by_hash: dict[int, tuple[str, ...]] = {}
    flat = [gram for found in expected for gram in found]
    for value, gram in zip(grams.hashes.tolist(), flat, strict=True):
        assert by_hash.setdefault(value, gram) == gram
    assert len(by_hash) == len(set(flat))


@given(TEXTS)
def test_hashes_do_not_depend_on_the_batch(texts):
    together = ngrams(split_words(texts), 2, whole=True)
    for i, text in enumerate(texts):
        alone = ngrams(split_words([text]), 2, whole=True)
        own = together.hashes[together.bounds[i] : together.bounds[i + 1]]
        assert own.tolist() == alone.hashes.tolist()


def test_a_short_text_counts_whole_where_asked():
    words = split_words(["one two", "one two three four", "", "漢"])
    assert np.diff(ngrams(words, 3).bounds).tolist() == [0, 2, 0, 0]
    assert np.diff(ngrams(words, 3, whole=True).bounds).tolist() == [1, 2, 0, 1]


def test_order_of_words_matters_and_seeds_differ():
    one = ngrams(split_words(["red blue green"]), 3)
    assert one.hashes.tolist() != ngrams(split_words(["green blue red"]), 3).hashes.tolist()
    assert one.hashes.tolist() != ngrams(split_words(["red blue green"]), 3, seed=1).hashes.tolist()


def test_gram_text_shows_the_stretch():
    words = split_words(["The cat, it SAT. 今天天气"])
    assert gram_text(words, 0, 3) == "the cat, it"
    assert gram_text(words, 2, 3) == "it sat. 今天"


@given(TEXTS)
def test_distinct_ngrams_are_the_set_of_each_text(texts):
    grams = ngrams(split_words(texts), 2)
    found = distinct(grams)
    for i in range(len(texts)):
        own = found.hashes[found.bounds[i] : found.bounds[i + 1]].tolist()
        upper = {
            value >> 20 << 20
            for value in grams.hashes[grams.bounds[i] : grams.bounds[i + 1]].tolist()
        }
        assert own == sorted(upper)


def test_extreme_characters_do_not_disturb():
    text = "\U0010ffff a\ud800b \U000e0100 \x00 ẞ İ"
    assert split_words([text]).counts()[0] >= 4
