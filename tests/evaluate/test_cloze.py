# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import re
from collections.abc import Sequence

import numpy as np
import pytest

from openllm.evaluate.cloze import (
    GROUPS,
    Question,
    ask,
    ask_ngram,
    make_questions,
    wilson,
)
from openllm.evaluate.ngram import KneserNey

BOS = 1
NAMES = [
    "Ada",
    "Ben",
    "Cleo",
    "Dora",
    "Emil",
    "Fay",
    "Gus",
    "Hana",
    "Ivan",
    "Jule",
    "Kai",
    "Lena",
    "Milo",
    "Nora",
    "Otto",
    "Pia",
]
THINGS = [
    "lantern",
    "basket",
    "hammer",
    "ribbon",
    "kettle",
    "pencil",
    "mirror",
    "blanket",
    "candle",
    "bucket",
]
PLACES = [
    "harbour",
    "meadow",
    "castle",
    "forest",
    "market",
    "bridge",
    "garden",
    "tavern",
    "valley",
    "island",
]


class WordTokenizer:
    """Whole words and punctuation; new words get the next id."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        parts = re.findall(r"\w+|[^\w\s]", text)
        return [self.ids.setdefault(part, 3 + len(self.ids)) for part in parts]


def stories(count: int, seed: int = 0) -> list[str]:
    """Each tells where a thing is found, and names it again at the end of the second sentence."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        name, thing, place = (str(rng.choice(words)) for words in (NAMES, THINGS, PLACES))
        texts.append(
            f"One fine day {name} took the {thing} along on the long way to the {place}. "
            f"Then {name} sat down beside the old wall and looked after the {thing}. "
            f"It was a day that nobody there would soon forget about, said {name}."
        )
    return texts


@pytest.fixture(scope="module")
def tokenizer() -> WordTokenizer:
    return WordTokenizer()


@pytest.fixture(scope="module")
def questions(tokenizer: WordTokenizer) -> list[Question]:
    return make_questions(
        stories(80), tokenizer.encode, prefix=[BOS], per_group=30, longest=100, seed=5
    )


def test_both_groups_are_filled_and_hold_what_they_say(questions: list[Question]) -> None:
    texts = stories(80)
    for group in GROUPS:
        assert sum(question.group == group for question in questions) == 30
    for question in questions:
        text = texts[question.document]
        word = question.words[0]
        end = text.index(f"{word}.") if question.group == "new" else text.rindex(f"{word}.")
        assert (word in text[:end]) == (question.group == "repeated")
        assert len(set(question.words)) == 4
        for other in question.words[1:]:
            assert other not in text
            assert other[0].isupper() == word[0].isupper()
            assert any(f"{other}." in other_text for other_text in texts)


def test_one_question_of_a_group_from_a_document(questions: list[Question]) -> None:
    keys = [(question.group, question.document) for question in questions]
    assert len(keys) == len(set(keys))


def test_tokens_spell_the_sentence(tokenizer: WordTokenizer, questions: list[Question]) -> None:
    spelled = {number: part for part, number in tokenizer.ids.items()}
    for question in questions:
        for word, tokens in zip(question.words, question.tokens, strict=True):
            assert tokens[0] == BOS
            assert spelled[int(tokens[question.begin])] == word
            assert spelled[int(tokens[-1])] == "."
            np.testing.assert_array_equal(
                tokens[: question.begin], question.tokens[0][: question.begin]
            )
        assert question.end == question.begin + 1


def test_questions_are_seeded(tokenizer: WordTokenizer, questions: list[Question]) -> None:
    def words(seed: int) -> list[tuple[str, ...]]:
        made = make_questions(
            stories(80), tokenizer.encode, prefix=[BOS], per_group=30, longest=100, seed=seed
        )
        return [question.words for question in made]

    assert words(5) == [question.words for question in questions]
    assert words(6) != words(5)


def knows(questions: Sequence[Question], which: str):
    """A scorer that finds the words at place `which` of the document likely, others not."""
    likely = {
        int(question.tokens[0][question.begin]) if which == "true" else -1 for question in questions
    }

    def score(documents: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for tokens in documents:
            # A cache model: words seen earlier in the document are likely to recur.
            before = [set(tokens[:at].tolist()) for at in range(1, len(tokens))]
            good = [
                int(token) in (seen if which == "cache" else likely)
                for token, seen in zip(tokens[1:], before, strict=True)
            ]
            found.append((np.where(good, -0.5, -9.0), np.array(good)))
        return found

    return score


def test_a_model_that_looks_back_wins_where_words_repeat(questions: list[Question]) -> None:
    found = ask(questions, knows(questions, "cache"))
    assert found["repeated"].choice.value == 1.0
    assert found["repeated"].recall.value == 1.0
    assert found["new"].choice.value == 0.0, "a tie is no choice"
    assert found["new"].recall.value == 0.0
    assert found["new"].questions == 30


def test_a_model_without_preference_is_at_chance(questions: list[Question]) -> None:
    rng = np.random.default_rng(0)

    def score(documents: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(-rng.random(len(d) - 1), rng.random(len(d) - 1) < 0.5) for d in documents]

    right = np.mean([ask(questions, score)["new"].choice.value for _ in range(40)])
    assert 0.2 < right < 0.3


def test_every_token_of_the_word_must_be_the_likeliest() -> None:
    tokens = tuple(np.array([BOS, 5, 6, 10 + i, 11 + i, 7]) for i in range(4))
    question = Question(0, "new", ("a", "b", "c", "d"), tokens, 3, 5)

    def recall(hits: list[bool]) -> float:
        return ask([question], lambda docs: [(np.zeros(5), np.array(hits))] * 4)["new"].recall.value

    assert recall([False, False, True, True, False]) == 1.0
    assert recall([True, True, True, False, True]) == 0.0
    assert recall([True, True, False, True, True]) == 0.0


def test_the_ngram_model_answers_by_its_own_distribution(
    tokenizer: WordTokenizer, questions: list[Question]
) -> None:
    training = [np.array([BOS, *tokenizer.encode(text), 2]) for text in stories(60, seed=9)]
    model = KneserNey.train(training, vocab_size=3 + len(tokenizer.ids), bos_id=BOS)
    some = questions[::6]
    found = ask_ngram(some, model)

    def score(documents: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        hits = [
            np.array([model.distribution(d[:at]).argmax() == d[at] for at in range(1, len(d))])
            for d in documents
        ]
        return list(zip(model.score(documents), hits, strict=True))

    assert found == ask(some, score)


def test_a_target_that_merges_with_its_surroundings_is_passed_over(
    tokenizer: WordTokenizer,
) -> None:
    def merging(text: str) -> list[int]:
        return tokenizer.encode(text.replace(".", "x"))  # "lantern." becomes one token

    assert not make_questions(stories(30), merging, prefix=[BOS], per_group=9, longest=99, seed=0)


def test_texts_without_sentences_or_too_long_give_no_questions(tokenizer: WordTokenizer) -> None:
    for texts in ([], ["no end here"], ["狐狸跳过了懒狗。"], ["one two. " * 3]):
        assert not make_questions(
            texts, tokenizer.encode, prefix=[BOS], per_group=5, longest=99, seed=0
        )
    assert not make_questions(
        stories(30), tokenizer.encode, prefix=[BOS], per_group=5, longest=12, seed=0
    )


def test_other_scripts_have_sentences_too(tokenizer: WordTokenizer) -> None:
    words = ["नदी", "पहाड़", "बाज़ार", "जंगल", "मैदान", "समुद्र", "बगीचा", "किताब", "दीपक", "आकाश"]
    texts = [f"{' '.join(words[i:] + words[:i])} और फिर {words[i]}।" for i in range(10)]
    made = make_questions(
        [t + " " + t for t in texts[:1]] + [f"{'a b c d e f g h i j'} {w}।" for w in words],
        tokenizer.encode,
        prefix=[BOS],
        per_group=5,
        longest=99,
        seed=0,
    )
    assert any(question.words[0] in words for question in made)


def test_wilson_interval() -> None:
    found = wilson([True] * 8 + [False] * 2)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.4902, abs=1e-3)  # Wilson score interval of 8 in 10
    assert found.high == pytest.approx(0.9433, abs=1e-3)
    assert wilson([True] * 5).high == 1.0
    assert wilson([False] * 5).low == pytest.approx(0.0)
