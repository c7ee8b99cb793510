# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""How a document is composed: seeded choices, a cast without confusable names, sentences."""

import random
from collections.abc import Sequence
from typing import Any, TypeVar

from openllm.data.builtin.lexicon import (
    FOODS_OF,
    HOME_SPOTS_OF,
    PLACES_OF,
    SPOTS_OF,
    THINGS_OF,
    TWINS_OF,
    Person,
    Place,
    Thing,
)
from openllm.data.builtin.lexicon import man as make_man
from openllm.data.builtin.lexicon import woman as make_woman
from openllm.data.builtin.names import MEN, TOWNS, WOMEN, Split
from openllm.data.builtin.template import Act, Variant

T = TypeVar("T")


class Draw:
    """Seeded choices; only `random()` is used, whose sequence Python guarantees to keep."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, all equally likely."""
        return items[int(self._random() * len(items))]

    def chance(self, share: float) -> bool:
        """True with this probability."""
        return self._random() < share

    def number(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self._random() * (high - low + 1))

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order."""
        rest = list(items)
        return [rest.pop(int(self._random() * len(rest))) for _ in items]


class Scene:
    """One document being composed; nothing is drawn twice, and no two names share an initial."""

    def __init__(self, draw: Draw, split: Split, acts: dict[str, Act]) -> None:
        self.draw = draw
        self.split: Split = split
        self.sentences: list[str] = []
        self._acts = acts
        self._focus: Person | None = None
        self._named = True
        self._initials: set[str] = set()
        self._used: set[str] = set()

    def name(self, pool: Sequence[str]) -> str:
        """A name that shares its first letter with no other name in this document."""
        while True:
            name = self.draw.pick(pool)
            if name[0] not in self._initials:
                self._initials.add(name[0])
                return name

    def person(self) -> Person:
        """A new person."""
        if self.draw.chance(0.5):
            return make_woman(self.name(WOMEN[self.split]))
        return make_man(self.name(MEN[self.split]))

    def town(self) -> str:
        """A town not used yet."""
        return self.name(TOWNS[self.split])

    def thing(self) -> Thing:
        """A thing whose noun and colour are not used yet."""
        while True:
            thing = self.draw.pick(THINGS_OF[self.split])
            if thing.thing not in self._used and thing.colour not in self._used:
                self._used |= {thing.thing, thing.colour}
                return thing

    def thing_and_other_colour(self) -> tuple[Thing, str]:
        """A thing, and the colour of another thing of its kind in this split."""
        while True:
            thing, colour = self.draw.pick(TWINS_OF[self.split])
            if not self._used & {thing.thing, thing.colour, colour}:
                self._used |= {thing.thing, thing.colour, colour}
                return thing, colour

    def fresh(self, items: Sequence[T]) -> T:
        """One of the items not used yet."""
        while True:
            item = self.draw.pick(items)
            if str(item) not in self._used:
                self._used.add(str(item))
                return item

    def place(self) -> Place:
        """A place not used yet."""
        return self.fresh(PLACES_OF[self.split])

    def spot(self) -> str:
        """An outdoor spot, not used yet."""
        return self.fresh(SPOTS_OF[self.split])

    def home_spot(self) -> str:
        """An indoor spot, not used yet."""
        return self.fresh(HOME_SPOTS_OF[self.split])

    def food(self) -> str:
        """Something to eat."""
        return self.fresh(FOODS_OF[self.split])

    def say(self, act: str, **slots: Any) -> None:
        """Add one sentence, sometimes with a pronoun for the subject of the previous one."""
        groups, free_lines = self._acts[act].variants, self._acts[act].free_lines
        free, referring = groups[self.draw.pick(range(len(groups)))]
        usable = () if not self._named else tuple(v for v in referring if self._meant(v, slots))
        if usable and (not free or self.draw.chance(0.5)):
            variant = self.draw.pick(usable)
        else:
            variant = self.draw.pick(free or groups[self.draw.pick(free_lines)][0])
        self.sentences.append(variant.form.format(**slots))
        self._named = variant.refers is None
        self._focus = slots[variant.subject] if variant.subject else None

    def _meant(self, variant: Variant, slots: dict[str, Any]) -> bool:
        return variant.refers is not None and slots[variant.refers] is self._focus

    def maybe(self, share: float, act: str, **slots: Any) -> None:
        """Add the sentence with this probability."""
        if self.draw.chance(share):
            self.say(act, **slots)

    def text(self) -> str:
        """The text of the document."""
        return " ".join(self.sentences).replace(" Question:", "\nQuestion:")
