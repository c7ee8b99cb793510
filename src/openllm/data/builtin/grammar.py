# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The whole grammar in reverse: from a sentence to the act it performs and its slots.

A sentence is reduced to its *skeleton*: every word of an open or closed class is replaced by its
class name (`<name> gave the <colour> <thing> to <name>.`), and skeletons are looked up.
"""

import re
from dataclasses import dataclass
from functools import cache

from openllm.data.builtin.grammar_numbers import NUMBER_ACTS
from openllm.data.builtin.grammar_questions import QUESTION_ACTS
from openllm.data.builtin.grammar_world import WORLD_ACTS
from openllm.data.builtin.lexicon import WORD_CLASS
from openllm.data.builtin.rhymes import RHYME_ACTS
from openllm.data.builtin.stories import STORY_ACTS
from openllm.data.builtin.template import KINDS, SLOT, Act, Variant

ACTS: dict[str, Act] = STORY_ACTS | RHYME_ACTS | WORLD_ACTS | QUESTION_ACTS | NUMBER_ACTS

# What a slot looks like in a skeleton, if not its kind or kind.part.
_LOOKS = {
    **dict.fromkeys(("person", "town", "river"), ("name",)),
    **dict.fromkeys(("person.he", "person.He"), ("he",)),
    **dict.fromkeys(("person.his", "person.His", "person.him"), ("his",)),
    **{f"person.{noun}": (noun,) for noun in ("girl", "woman", "grandmother")},
    "thing": ("colour", "thing"),
    "thing.thing": ("thing",),
    "thing.colour": ("colour",),
    "trade.name": ("trade",),
}
_WORD = re.compile(
    "|".join(re.escape(w) + r"\b" for w in sorted(WORD_CLASS, key=len, reverse=True) if " " in w)
    + r"|[A-Za-z]+|\d+"
)
_CAPITALISED = re.compile(r"\b[A-Z][a-z]*")


@dataclass(frozen=True)
class Word:
    """A word of a sentence that may fill a slot: its class, meaning and letters."""

    kind: str
    meaning: str
    letters: str


@dataclass(frozen=True)
class Part:
    """What a template expects of one word: the part of a slot, or exactly these letters."""

    slot: str
    kind: str
    part: str
    letters: str


@dataclass(frozen=True)
class Reading:
    """One way to read a skeleton."""

    act: str
    variant: Variant
    parts: tuple[Part, ...]


def fixed_words() -> frozenset[str]:
    """All capitalised words of the templates themselves; every other one is a name."""
    return frozenset(
        word
        for act in ACTS.values()
        for group in act.variants
        for variant in (*group[0], *group[1])
        for word in _CAPITALISED.findall(SLOT.sub("", variant.form))
        if word not in WORD_CLASS
    )


FIXED_WORDS = fixed_words()


def skeleton(text: str) -> tuple[str, list[Word]]:
    """The skeleton of a sentence or of a template fragment, and the words it replaces."""
    words: list[Word] = []

    def replace(match: re.Match[str]) -> str:
        letters = match[0]
        kind, meaning = WORD_CLASS.get(letters, ("", letters))
        if not kind and letters[0].isdigit():
            kind, meaning = "number", letters.lstrip("0") or "0"
        elif not kind and letters[0].isupper() and letters not in FIXED_WORDS:
            kind = "name"
        if not kind:
            return letters
        words.append(Word(kind, meaning, letters))
        return f"<{kind}>"

    return _WORD.sub(replace, text), words


def _template_skeleton(form: str) -> tuple[str, tuple[Part, ...]]:
    """The skeleton of a format string, and what its slots and fixed words expect."""
    pieces, parts = [], []
    pos = 0
    for slot in SLOT.finditer(form):
        piece, fixed = skeleton(form[pos : slot.start()])
        pieces.append(piece)
        parts += [Part("", word.kind, "", word.letters) for word in fixed]
        letter, part = slot.groups()
        look = f"{KINDS[letter]}.{part}" if part else KINDS[letter]
        kinds = _LOOKS.get(look, (look,))
        pieces.append(" ".join(f"<{kind}>" for kind in kinds))
        parts += [Part(letter, kind, part or "", "") for kind in kinds]
        pos = slot.end()
    piece, fixed = skeleton(form[pos:])
    parts += [Part("", word.kind, "", word.letters) for word in fixed]
    return "".join(pieces) + piece, tuple(parts)


@cache
def readings() -> dict[str, tuple[Reading, ...]]:
    """Skeleton -> the ways to read it."""
    table: dict[str, dict[tuple[str, tuple[Part, ...]], Reading]] = {}
    for name, act in ACTS.items():
        for free, referring in act.variants:
            for variant in (*free, *referring):
                key, parts = _template_skeleton(" ".join(variant.form.split()))
                table.setdefault(key, {})[name, parts] = Reading(name, variant, parts)
    return {key: tuple(found.values()) for key, found in table.items()}


def read(sentence: str) -> tuple[Reading, list[Word]] | None:
    """Parse a sentence; None if the grammar does not know it."""
    key, words = skeleton(" ".join(sentence.split()))
    for reading in readings().get(key, ()):
        expected = [(part.letters, word.letters) for part, word in zip(reading.parts, words)]  # noqa: B905
        if all(not letters or letters == found for letters, found in expected):
            return reading, words
    return None
