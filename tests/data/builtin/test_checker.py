# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The checker of the builtin corpus: gold text is consistent, damaged text is not."""

import random
import re
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openllm.data.builtin import lexicon, names
from openllm.data.builtin.checker import consistency, split_sentences
from openllm.data.builtin.corpus import document, prompts
from openllm.data.builtin.grammar import ACTS, read, readings, skeleton
from openllm.data.builtin.names import SPLITS
from openllm.data.builtin.world import WORLD

STORY = (
    "Long ago, a brave girl named Mirella lived in Ashford. "
    "Mirella had a red kite and took it everywhere. "
    "Next door to Mirella lived a boy named Tobin. "
    "One day, Mirella and Tobin walked to the old mill. "
    "Suddenly, Mirella saw that the red kite was gone. "
    '"Let us look under the low bench," said Tobin. '
    "He looked under the low bench, but the red kite was not there. "
    "At last, Tobin found the red kite in the wide nest. "
    "Tobin gave the red kite back to Mirella. "
    '"Thank you, Tobin!" said Mirella. '
    "She never forgot how Tobin had found the red kite in the wide nest. "
    "There was no girl in Ashford as brave as Mirella."
)


@pytest.mark.integration
@pytest.mark.parametrize("split", SPLITS)
def test_gold_text_is_fully_understood_and_consistent(split):
    kinds = set()
    for index in range(600):
        gold = document(split, 11, index)
        found = consistency(gold.text)
        assert not found.errors and not found.unread, gold.id
        assert found.claims >= 4, gold.text
        assert found.score == found.coverage == found.headline == 1
        kinds.add(gold.source)
    assert len(kinds) == 5


def test_the_story_of_these_tests_is_consistent():
    found = consistency(STORY)
    assert not found.errors and not found.unread
    assert found.sentences == 12


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("She never", "He never", "Mirella is female, not male"),
        ('"Thank you, Tobin!"', '"Thank you, Karlo!"', "Karlo has not been introduced"),
        ('"Thank you, Tobin!"', '"Thank you, Mirella!"', "two roles"),
        ("gave the red kite", "gave the blue kite", "kite is red, not blue"),
        ("gave the red kite", "gave the red drum", "drum has not been introduced"),
        ("Tobin gave the red kite back to M", "Mirella gave the red kite back to T", "has of kite"),
        (
            "found the red kite in the wide nest. T",
            "found the red kite under the low bench. T",
            "searched of under the low bench",
        ),
        (
            "had found the red kite in the wide nest",
            "had found the red kite in the low bush",
            "found of kite is in the wide nest, not in the low bush",
        ),
        ("girl in Ashford", "girl in Oakham", "Oakham has not been introduced"),
        ("as brave as", "as clever as", "trait of Mirella is brave, not clever"),
        ("There was no girl", "There was no boy", "Mirella is female, not male"),
        ("boy named Tobin", "boy named Mirella", "introduced although known"),
        ('look under the low bench," said', 'look in the wide bush," said', "guess"),
    ],
)
def test_each_kind_of_contradiction_is_told(old, new, message):
    damaged = STORY.replace(old, new)
    assert damaged != STORY
    found = consistency(damaged)
    assert any(message in what for _, what in found.errors), found.errors
    assert found.headline < 1


def test_arithmetic_is_computed():
    text = (
        "A girl named Mirella has 47 plums. A boy named Tobin brings 38 more plums to Mirella. "
        "How many plums does Mirella have now? Add the tens: 47 + 30 = 77. "
        "Add the ones: 77 + 8 = 85. So Mirella has 85 plums now, thanks to Tobin."
    )
    assert consistency(text).headline == 1
    for old, new, message in (
        ("77 + 8 = 85", "77 + 8 = 84", "77 + 8 is not 84"),
        ("47 + 30 = 77", "47 + 20 = 67", "the tens of 38 are 30, not 20"),
        ("has 85 plums", "has 95 plums", "85, not 95"),
        ("has 47 plums", "has 57 plums", "the number to go on from is 57, not 47"),
        ("85 plums now", "85 shells now", "item"),
    ):
        errors = consistency(text.replace(old, new)).errors
        assert any(message in what for _, what in errors), (new, errors)


def test_the_world_is_known():
    town = WORLD["train"][0]
    other = next(t for t in WORLD["train"] if t.bridges != town.bridges and t.river != town.river)
    intro = f"The town of {town.name} lies on the banks of the river {town.river.name}."
    assert consistency(f"{intro} {town.name} has {town.bridges} bridges over the "
                       f"{town.river.name}.").headline == 1  # fmt: skip
    wrong = consistency(f"{intro} {town.name} has {other.bridges} bridges over the "
                        f"{town.river.name}.")  # fmt: skip
    assert f"bridges of {town.name} is {town.bridges}" in wrong.errors[0][1]
    moved = f"The town of {town.name} lies on the banks of the river {other.river.name}."
    assert f"river of {town.name}" in consistency(moved).errors[0][1]
    invented = consistency(
        f"The town of Zorbury lies on the banks of the river {other.river.name}."
    )
    assert "the world knows nothing" in invented.errors[0][1]


def test_an_answer_must_follow_from_the_passage():
    passage = "".join(f"{sentence} " for sentence, _ in split_sentences(STORY)[:9])
    question = "Question: Who has the red kite now?\nAnswer: "
    assert consistency(f"{passage}\n{question}Mirella.").headline == 1
    assert consistency(f"{passage}\n{question}Tobin.").errors


def test_what_is_not_understood_lowers_the_headline_only():
    found = consistency(STORY + " The kite of the was and. Mirella and Mirella or Tobin flew.")
    assert found.score == 1
    assert found.coverage == 12 / 14
    assert found.headline == found.claims / (found.claims + 2)
    assert found.unread[0] == "The kite of the was and."


def test_a_cut_end_is_left_out_but_endless_text_is_not():
    assert consistency(STORY + " Then Tobin gave the").sentences == 12
    assert consistency(STORY + " Then" + " and then" * 40).sentences == 13
    assert consistency("Tobin gave the").coverage == 0


@pytest.mark.parametrize("text", ["", "   ", "hello", "1 2 3", "Never. Ever! Was it?", "a b " * 99])
def test_text_from_elsewhere_scores_nothing(text):
    found = consistency(text)
    assert (found.score, found.coverage, found.headline) == (0, 0, 0)


def test_a_prompt_is_believed_and_not_scored():
    sentences = [sentence for sentence, _ in split_sentences(STORY)]
    prompt = " ".join(sentences[:3])
    rest = " " + " ".join(sentences[3:])
    whole, continued = consistency(STORY), consistency(rest, prompt=prompt)
    assert not continued.errors and not continued.unread
    assert continued.sentences == 9
    assert continued.claims < whole.claims
    assert consistency(rest).errors


def test_a_prompt_in_free_words_introduces_its_names():
    free = "Mirella and Tobin were out for a walk. "
    assert consistency('"Thank you, Tobin!" said Mirella.').errors
    assert not consistency('"Thank you, Tobin!" said Mirella.', prompt=free).errors
    half = consistency(" lived in Ashford. Mirella had a red kite and took it everywhere.",
                       prompt="Long ago, a brave girl named Mirella")  # fmt: skip
    assert not half.errors and not half.unread


def test_prompts_can_be_continued_by_their_own_story():
    for prompt in prompts("validation", 0, 50):
        assert consistency(prompt).coverage == 1


def _words(text: str, kinds: tuple[str, ...]) -> list[re.Match[str]]:
    found = []
    for match in re.finditer(r"[A-Za-z]+|\d+", text):
        words = skeleton(match[0])[1]
        if words and words[0].kind in kinds:
            found.append(match)
    return found


def _swap_word(rng: random.Random, text: str, kinds: tuple[str, ...], pool: list[str]) -> str:
    """The text with one word of these kinds replaced; unchanged if there is none."""
    found = _words(text, kinds)
    if not found:
        return text
    match = rng.choice(found)
    new = rng.choice([word for word in pool if word != match[0]])
    return text[: match.start()] + new + text[match.end() :]


def _swap_place(rng: random.Random, text: str) -> str:
    places = [place.name for place in lexicon.PLACES_OF["test"] if place.name in text]
    if not places:
        return text
    found = list(re.finditer("|".join(places), text))
    match = rng.choice(found)
    new = rng.choice([p.name for p in lexicon.PLACES_OF["test"] if p.name != match[0]])
    return text[: match.start()] + new + text[match.end() :]


CORRUPTIONS = {
    "name": lambda rng, text: _swap_word(
        rng, text, ("name",), names.WOMEN["test"] + names.MEN["test"] + names.TOWNS["test"]
    ),
    "name for another of the text": lambda rng, text: _swap_word(
        rng, text, ("name",), sorted({m[0] for m in _words(text, ("name",))} | {"Zorbo"})
    ),
    "colour": lambda rng, text: _swap_word(rng, text, ("colour",), lexicon.COLOURS),
    "thing": lambda rng, text: _swap_word(rng, text, ("thing",), lexicon.THINGS),
    "place": _swap_place,
    "number": lambda rng, text: _swap_word(rng, text, ("number",), [str(n) for n in range(2, 150)]),
    "pronoun": lambda rng, text: re.sub(
        r"\b(?:She|He)\b", lambda m: {"She": "He", "He": "She"}[m[0]], text, count=1
    ),
}


@pytest.mark.integration
@pytest.mark.parametrize("what", CORRUPTIONS)
def test_a_corruption_of_gold_text_is_caught(what):
    rng = random.Random(what)
    tried = caught = 0
    for index in range(400):
        gold = document("test", 21, index).text
        damaged = CORRUPTIONS[what](rng, gold)
        if damaged != gold:
            tried += 1
            caught += consistency(damaged).headline < 1
    assert tried > 60
    assert caught / tried >= (0.93 if what == "name for another of the text" else 0.95)


def test_sentences_of_two_stories_mixed_are_inconsistent():
    stories = [d.text for d in (document("test", 31, i) for i in range(80)) if "story" in d.source]
    for one, two in zip(stories[::2], stories[1::2], strict=False):
        ours = [sentence for sentence, _ in split_sentences(one)]
        theirs = [sentence for sentence, _ in split_sentences(two)]
        mixed = consistency(" ".join(ours[: len(ours) // 2] + theirs[len(theirs) // 2 :]))
        assert mixed.headline < 0.9


@pytest.mark.integration
def test_every_act_is_used_and_no_sentence_has_two_meanings():
    used = set()
    for index in range(1200):
        for sentence, _ in split_sentences(document("train", 5, index).text):
            found = read(sentence)
            assert found is not None
            used.add(found[0].act)
    assert used == set(ACTS)
    for pattern, ways in readings().items():
        acts = defaultdict(set)
        for way in ways:
            acts[tuple(part.letters for part in way.parts)].add(way.act)
        assert all(len(found) == 1 for found in acts.values()), pattern


@given(st.lists(st.sampled_from([*STORY.split(), "Question:", "Answer:", "47", "\n\n", '"'])))
def test_any_jumble_of_words_is_scored_within_bounds(words):
    found = consistency(" ".join(words))
    assert 0 <= found.headline <= found.score <= 1
    assert 0 <= found.coverage <= 1
    assert found.understood + len(found.unread) == found.sentences


@given(st.text(), st.text())
def test_any_text_can_be_checked(text, prompt):
    assert consistency(text, prompt=prompt).headline <= 1
