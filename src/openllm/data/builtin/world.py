# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The invented world: rivers, the towns on them, their trades, masters and animals.

It does not depend on the seed of the corpus, so that statements about an entity agree in every
document ever generated. Each split has entities of its own.
"""

from dataclasses import dataclass

from openllm.data.builtin.lexicon import (
    ALL_TRADES,
    ANIMALS_OF,
    COLOURS,
    DAYS,
    FEEDS,
    HOURS,
    SOURCES,
    Animal,
    Person,
    Trade,
    man,
    woman,
)
from openllm.data.builtin.names import MEN, RIVERS, SPLITS, TOWNS, WOMEN, Split
from openllm.data.builtin.scene import Draw

WORLD_SEED = "the world"
NUM_RIVERS = {"train": 12, "validation": 8, "test": 8}


@dataclass(frozen=True)
class River:
    """A river: where it comes from, its colour after rain, hours by boat between its two towns."""

    name: str
    source: str
    water: str
    hours: int


@dataclass(frozen=True)
class Town:
    """A town with its river, its trade, the oldest master of that trade and an animal nearby."""

    name: str
    river: River
    trade: Trade
    bridges: int
    day: str
    master: Person
    years: int
    animal: Animal
    colour: str
    feed: str
    hour: str


def _towns(split: Split) -> list[Town]:
    """The towns of one split; towns 2i and 2i + 1 lie on river i, upstream town first."""
    draw = Draw(f"{WORLD_SEED}/{split}")
    rivers = draw.shuffled(RIVERS[split])[: NUM_RIVERS[split]]
    count = 2 * len(rivers)
    names = draw.shuffled(TOWNS[split])[:count]
    animals = draw.shuffled(ANIMALS_OF[split])[:count]
    people = [woman(name) for name in draw.shuffled(WOMEN[split])[: count // 2]]
    people += [man(name) for name in draw.shuffled(MEN[split])[: count // 2]]
    people = draw.shuffled(people)
    towns = []
    for i, river_name in enumerate(rivers):
        river = River(river_name, draw.pick(SOURCES), draw.pick(COLOURS), draw.number(2, 9))
        for j, trade in zip((2 * i, 2 * i + 1), draw.shuffled(ALL_TRADES)[:2], strict=True):
            towns.append(
                Town(
                    names[j],
                    river,
                    trade,
                    draw.number(2, 9),
                    draw.pick(DAYS),
                    people[j],
                    draw.number(11, 59),
                    animals[j],
                    draw.pick(COLOURS),
                    draw.pick(FEEDS),
                    draw.pick(HOURS),
                )
            )
    return towns


WORLD: dict[Split, list[Town]] = {split: _towns(split) for split in SPLITS}


def _facts() -> dict[tuple[str, str], str]:
    facts: dict[tuple[str, str], str] = {}
    for town in (town for towns in WORLD.values() for town in towns):
        river, animal, master = town.river, town.animal.name, town.master
        for key, value in {
            ("river", town.name): river.name,
            ("trade", town.name): town.trade.name,
            ("bridges", town.name): str(town.bridges),
            ("market", town.name): town.day,
            ("master", town.name): master.name,
            ("town", master.name): town.name,
            ("craft", master.name): town.trade.name,
            ("years", master.name): str(town.years),
            ("gender", master.name): "female" if master.he == "she" else "male",
            ("near", animal): river.name,
            ("coat", animal): town.colour,
            ("feed", animal): town.feed,
            ("hour", animal): town.hour,
            ("source", river.name): river.source,
            ("water", river.name): river.water,
            ("hours", river.name): str(river.hours),
        }.items():
            if facts.setdefault(key, value) != value:
                raise AssertionError(f"the world contradicts itself about {key}")
    return facts


WORLD_FACTS = _facts()
"""(relation, entity) -> its value in the invented world."""

WORLD_NAMES = frozenset(entity for _, entity in WORLD_FACTS)
"""Every town, river, person and animal of the invented world."""
