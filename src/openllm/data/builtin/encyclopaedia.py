# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Paragraphs about the invented world: a town, a river, an animal or a master of a trade."""

from collections.abc import Callable

from openllm.data.builtin.grammar_world import WORLD_ACTS
from openllm.data.builtin.names import Split
from openllm.data.builtin.scene import Draw, Scene
from openllm.data.builtin.world import WORLD, Town


def paragraph(draw: Draw, split: Split) -> str:
    """One paragraph of 7 to 11 sentences."""
    scene = Scene(draw, split, WORLD_ACTS)
    index = draw.number(0, len(WORLD[split]) // 2 - 1) * 2
    towns = WORLD[split][index : index + 2]
    draw.pick(TOPICS)(scene, draw.pick(towns), towns)
    return scene.text()


def _about_town(s: Scene, town: Town, towns: list[Town]) -> None:
    _town(s, town)
    for block in s.draw.shuffled((_trade, _master, _animal, _bridges)):
        block(s, town)


def _about_river(s: Scene, town: Town, towns: list[Town]) -> None:
    upper, lower = towns
    river = upper.river
    s.say("river", r=river.name, z=river.source)
    s.say("river_towns", r=river.name, t=upper.name, v=lower.name)
    s.say("river_water", r=river.name, y=river.water)
    s.say("river_boat", r=river.name, t=upper.name, v=lower.name, n=river.hours)
    for each in s.draw.shuffled(towns):
        s.draw.pick((_trade, _bridges))(s, each)
    _animal(s, town)


def _about_animal(s: Scene, town: Town, towns: list[Town]) -> None:
    s.say("animal", x=town.animal, r=town.river.name)
    s.say("animal_coat", x=town.animal, y=town.colour)
    s.say("animal_feed", x=town.animal, i=town.feed)
    _town(s, town)
    _hour(s, town)
    s.say("animal_luck", x=town.animal, t=town.name, e=town.trade)
    s.draw.pick((_trade, _bridges))(s, town)


def _about_master(s: Scene, town: Town, towns: list[Town]) -> None:
    _master(s, town)
    _town(s, town)
    for block in s.draw.shuffled((_trade, _bridges)):
        block(s, town)
    _sells(s, town)


def _town(s: Scene, town: Town) -> None:
    s.say("town", t=town.name, r=town.river.name)


def _trade(s: Scene, town: Town) -> None:
    s.say("town_trade", t=town.name, e=town.trade)
    s.maybe(0.7, "town_ware", t=town.name, e=town.trade, r=town.river.name)


def _bridges(s: Scene, town: Town) -> None:
    s.say("town_bridges", t=town.name, r=town.river.name, n=town.bridges)
    s.maybe(0.6, "town_market", t=town.name, r=town.river.name, d=town.day, e=town.trade)


def _master(s: Scene, town: Town) -> None:
    s.say("master", t=town.name, b=town.master, e=town.trade)
    s.say("master_years", t=town.name, b=town.master, e=town.trade, n=town.years)
    s.maybe(0.5, "master_sells", t=town.name, b=town.master, e=town.trade, d=town.day)


def _sells(s: Scene, town: Town) -> None:
    s.say("master_sells", t=town.name, b=town.master, e=town.trade, d=town.day)


def _animal(s: Scene, town: Town) -> None:
    s.say("animal", x=town.animal, r=town.river.name)
    s.draw.pick((_coat, _feed))(s, town)
    s.draw.pick((_hour, _luck))(s, town)


def _coat(s: Scene, town: Town) -> None:
    s.say("animal_coat", x=town.animal, y=town.colour)


def _feed(s: Scene, town: Town) -> None:
    s.say("animal_feed", x=town.animal, i=town.feed)


def _hour(s: Scene, town: Town) -> None:
    slots = {"x": town.animal, "h": town.hour, "i": town.feed}
    s.say("animal_hour", t=town.name, r=town.river.name, **slots)


def _luck(s: Scene, town: Town) -> None:
    s.say("animal_luck", x=town.animal, t=town.name, e=town.trade)


TOPICS: tuple[Callable[[Scene, Town, list[Town]], None], ...] = (
    _about_town,
    _about_river,
    _about_animal,
    _about_master,
)
