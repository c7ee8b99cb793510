# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The builtin corpus: reproducible, disjoint between splits, varied enough to pass cleaning."""

import hashlib
import itertools
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from openllm.core.errors import DataError
from openllm.data.builtin import lexicon, names
from openllm.data.builtin.arithmetic import held_by
from openllm.data.builtin.corpus import KINDS, document, generate, prompts
from openllm.data.builtin.grammar import FIXED_WORDS
from openllm.data.builtin.names import SPLITS, Split
from openllm.data.document import Document

HELD_OUT = ("validation", "test")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "builtin_corpus.md"


@cache
def documents(split: Split, count: int) -> list[Document]:
    return list(itertools.islice(generate(split, 0), count))


def text_of(split: Split, count: int) -> str:
    return "\n".join(d.text for d in documents(split, count))


def people(split: Split) -> set[str]:
    return {*names.WOMEN[split], *names.MEN[split]}


def all_names(split: Split) -> set[str]:
    return people(split) | {*names.TOWNS[split], *names.RIVERS[split]}


def capitalised(text: str) -> set[str]:
    return set(re.findall(r"\b[A-Z][a-z]+", text))


def combinations(split: Split) -> set[str]:
    """All pairs of adjacent words that belong to a split: `red kite`, `old mill`."""
    spots = (*lexicon.SPOTS_OF[split], *lexicon.HOME_SPOTS_OF[split])
    animals = lexicon.ANIMALS_OF[split]
    phrases = {
        *map(str, lexicon.THINGS_OF[split]),
        *map(str, lexicon.PLACES_OF[split]),
        *lexicon.FOODS_OF[split],
        *(spot.split(" the ")[1] for spot in spots),
        *(form for animal in animals for form in (animal.name, animal.all)),
    }
    return {" ".join(phrase.split()[:2]) for phrase in phrases}


def pairs(text: str) -> set[str]:
    """All pairs of adjacent words in a text."""
    found = re.findall(r"\w+", text)
    return {f"{one} {two}" for one, two in itertools.pairwise(found)}


def shingles(text: str, n: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(*(words[i:] for i in range(n)), strict=False))


def test_a_document_depends_on_split_seed_and_index_only():
    assert documents("test", 20)[13] == document("test", 0, 13)
    texts = {document(split, seed, 5).text for split in SPLITS for seed in (0, 1)}
    assert len(texts) == 6
    ids = [d.id for split in SPLITS for d in documents(split, 50)]
    assert len(set(ids)) == len(ids)


def test_the_text_does_not_change_unnoticed():
    # A new grammar makes a new corpus: results are comparable only under one fingerprint.
    digest = hashlib.sha256()
    for split in SPLITS:
        for d in documents(split, 50):
            digest.update(f"{d.id}\t{d.source}\t{d.text}\n".encode())
    assert digest.hexdigest()[:16] == "cbfb21c27005706f"


def test_the_kinds_are_mixed_as_stated():
    count = 3000
    found = Counter(d.source for d in documents("train", count))
    page = PAGE.read_text(encoding="utf-8")
    assert sum(share for share, _ in KINDS.values()) == pytest.approx(1)
    for kind, (share, _) in KINDS.items():
        assert found[f"builtin/{kind}"] / count == pytest.approx(share, abs=0.03)
        assert re.search(rf"\| `{kind}` \| {share:.0%} \|".replace("%", " ?%"), page)


def test_no_held_out_name_occurs_in_training_text():
    seen = capitalised(text_of("train", 3000))
    for split in HELD_OUT:
        assert not seen & all_names(split)


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_uses_only_names_of_its_own(split):
    days = set(lexicon.DAYS) | {"He", "She", "His", "Her"}
    used = capitalised(text_of(split, 1000)) - FIXED_WORDS - days
    assert used <= all_names(split)
    assert len(used) > 150


def test_names_belong_to_one_split_and_one_gender_and_are_no_words_of_the_grammar():
    for one, other in itertools.combinations(SPLITS, 2):
        assert not all_names(one) & all_names(other)
    for split in SPLITS:
        assert not set(names.WOMEN[split]) & set(names.MEN[split])
        assert not all_names(split) & (FIXED_WORDS | set(lexicon.WORD_CLASS))


def test_training_shows_every_syllable_that_held_out_names_are_made_of():
    for starts, ends, pool in (
        (names.PERSON_STARTS, names.FEMALE_ENDS, names.WOMEN),
        (names.PERSON_STARTS, names.MALE_ENDS, names.MEN),
        (names.TOWN_STARTS, names.TOWN_ENDS, names.TOWNS),
        (names.RIVER_STARTS, names.RIVER_ENDS, names.RIVERS),
    ):
        assert all(any(name.startswith(start) for name in pool["train"]) for start in starts)
        assert all(any(name.endswith(end) for name in pool["train"]) for end in ends)


@pytest.mark.parametrize("split", SPLITS)
def test_no_combination_of_one_split_occurs_in_another(split):
    used = pairs(text_of(split, 3000 if split == "train" else 1000))
    for other in SPLITS:
        if other == split:
            assert len(used & combinations(other)) > 100
        else:
            assert not used & combinations(other)


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_keeps_to_its_own_sums(split):
    found = re.findall(r"\d+ [+-] \d+", text_of(split, 3000 if split == "train" else 1000))
    assert {held_by(operation) for operation in found} == {None, split}


def test_held_by_wants_an_operation():
    with pytest.raises(ValueError, match=r"47 \+ 38"):
        held_by("47 times 38")


@pytest.mark.integration
def test_hardly_any_training_document_shares_a_13_gram_with_held_out_text():
    held = set().union(*(shingles(d.text, 13) for split in HELD_OUT for d in documents(split, 150)))
    train = documents("train", 2000)
    leaking = [d.id for d in train if shingles(d.text, 13) & held]
    assert len(leaking) < 0.01 * len(train)


def test_near_duplicates_are_rare():
    sets = [shingles(d.text, 5) for d in documents("train", 1500)]
    holders: dict[tuple[str, ...], list[int]] = {}
    close = 0
    for i, grams in enumerate(sets):
        common = Counter(j for gram in grams for j in holders.get(gram, ()))
        close += any(n / (len(grams) + len(sets[j]) - n) > 0.8 for j, n in common.items())
        for gram in grams:
            holders.setdefault(gram, []).append(i)
    assert close <= 1


def test_texts_are_clean_and_of_the_stated_length():
    for d in documents("train", 1000):
        assert d.text.isascii()
        assert "  " not in d.text
        assert "{" not in d.text
        assert d.text[-1] in ".!?"
        assert len(d.text.split()) >= 20
        if d.source == "builtin/story":
            assert 450 < len(d.text) < 1300
            assert "\n" not in d.text


def test_prompts_are_the_first_sentences_of_stories():
    found = prompts("test", 7, 40)
    assert len(found) == 40
    assert len(set(found)) > 35
    assert found[:10] == prompts("test", 7, 10)
    for prompt in found:
        assert prompt.endswith(".")
        assert capitalised(prompt) & people("test")


def test_an_unknown_split_is_named():
    with pytest.raises(DataError, match=r"no split 'dev'.*train"):
        document("dev", 0, 0)  # type: ignore[arg-type]


def test_the_corpus_needs_no_torch():
    code = "import sys, openllm.data.builtin.checker, openllm.data.builtin.corpus as c;"
    code += "c.document('train', 0, 0); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
