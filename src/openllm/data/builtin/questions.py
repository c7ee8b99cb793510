# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Short passages with two or three questions; each answer is in the passage."""

from collections.abc import Callable
from typing import Any

from openllm.data.builtin.grammar_questions import QUESTION_ACTS
from openllm.data.builtin.grammar_world import WORLD_ACTS
from openllm.data.builtin.names import Split
from openllm.data.builtin.scene import Draw, Scene
from openllm.data.builtin.stories import STORY_ACTS
from openllm.data.builtin.world import WORLD

Asked = list[tuple[str, dict[str, Any]]]
"""Acts of `grammar_questions.py` with their slots; the first is always asked."""


def questions(draw: Draw, split: Split) -> str:
    """One passage with its questions and answers."""
    scene = Scene(draw, split, STORY_ACTS | WORLD_ACTS | QUESTION_ACTS)
    asked = draw.pick(PASSAGES)(scene)
    others = draw.shuffled(asked[1:])[: draw.number(1, 2)]
    for act, slots in draw.shuffled([asked[0], *others]):
        scene.say(act, **slots)
    return scene.text()


def _pair(s: Scene) -> tuple[dict[str, Any], Asked]:
    """The opening shared by all small scenes: a with a home and a friend b."""
    cast = {"a": s.person(), "b": s.person(), "t": s.town()}
    s.say("intro_plain", a=cast["a"], t=cast["t"])
    s.say("friend", a=cast["a"], b=cast["b"])
    asked: Asked = [("where_home", cast), ("which_friend", cast)]
    return cast, asked


def _gift(s: Scene) -> Asked:
    cast, asked = _pair(s)
    a, b, o, p = cast["a"], cast["b"], s.thing(), s.place()
    s.say("own", a=a, o=o)
    s.say("go_together", a=a, b=b, p=p)
    s.say("rest", a=a, b=b, p=p)
    s.say("give", a=a, b=b, o=o)
    s.say("joy", b=b, o=o)
    return [
        *asked,
        ("who_has", {"a": b, "o": o}),
        ("who_gave", {"a": a, "b": b, "o": o}),
        ("what_colour", {"a": a, "o": o, "y": o.colour}),
        ("where_went", {"a": b, "p": p}),
    ]


def _hidden(s: Scene) -> Asked:
    cast, asked = _pair(s)
    a, b, o, spot = cast["a"], cast["b"], s.thing(), s.home_spot()
    s.say("own", a=a, o=o)
    s.say("game", a=a, b=b, o=o)
    s.say("hide", a=a, b=b, o=o, s=spot)
    return [
        ("where_is", {"o": o, "s": spot}),
        ("who_owns", {"a": a, "o": o}),
        ("what_colour", {"a": a, "o": o, "y": o.colour}),
        *asked,
    ]


def _lost(s: Scene) -> Asked:
    cast, asked = _pair(s)
    a, b, o, p, spot = cast["a"], cast["b"], s.thing(), s.place(), s.spot()
    s.say("own", a=a, o=o)
    s.say("go_together", a=a, b=b, p=p)
    s.say("rest", a=a, b=b, p=p)
    s.say("lose", a=a, o=o)
    s.say("find", b=b, o=o, s=spot)
    if s.draw.chance(0.5):
        s.say("give_back", a=b, b=a, o=o)
        asked.append(("who_has", {"a": a, "o": o}))
    else:
        asked.append(("who_has", {"a": b, "o": o}))
    return [
        ("where_found", {"o": o, "s": spot}),
        *asked,
        ("who_found", {"b": b, "o": o}),
        ("who_owns", {"a": a, "o": o}),
        ("where_went", {"a": a, "p": p}),
    ]


def _swapped(s: Scene) -> Asked:
    cast, asked = _pair(s)
    a, b, o, u = cast["a"], cast["b"], s.thing(), s.thing()
    s.say("own", a=a, o=o)
    s.say("own", a=b, o=u)
    s.say("swap", a=a, b=b, o=o, u=u)
    s.say("go_home", a=a, b=b, t=cast["t"])
    return [
        *asked,
        ("who_has", {"a": b, "o": o}),
        ("who_has", {"a": a, "o": u}),
        ("what_colour", {"a": a, "o": o, "y": o.colour}),
    ]


def _sold(s: Scene) -> Asked:
    a, t, c, p = s.person(), s.town(), s.person(), s.place()
    o, u, n = s.thing(), s.thing(), s.draw.number(2, 9)
    s.say("intro_plain", a=a, t=t)
    s.say("go", a=a, p=p)
    s.say("meet", a=a, c=c, p=p)
    s.say("wares", c=c, o=o, u=u)
    s.say("price", a=a, c=c, o=o, n=n)
    s.say("buy", a=a, c=c, o=o, n=n)
    s.say("left_over", c=c, u=u)
    return [
        ("where_home", {"a": a, "t": t}),
        ("who_has", {"a": a, "o": o}),
        ("who_has", {"a": c, "o": u}),
        ("what_price", {"o": o, "n": n}),
        ("where_went", {"a": a, "p": p}),
    ]


def _rewarded(s: Scene) -> Asked:
    a, t, c, p = s.person(), s.town(), s.person(), s.place()
    (o, other), f, spot = s.thing_and_other_colour(), s.food(), s.spot()
    s.say("intro_plain", a=a, t=t)
    s.say("go", a=a, p=p)
    s.say("find_strange", a=a, o=o, s=spot)
    s.say("meet", a=a, c=c, p=p)
    s.say("is_it_yours", a=a, b=c, o=o)
    if s.draw.chance(0.5):
        s.say("not_mine", b=c, o=o, y=other)
        return [
            ("where_found", {"o": o, "s": spot}),
            ("who_has", {"a": a, "o": o}),
            ("who_found", {"b": a, "o": o}),
            ("what_colour", {"a": a, "o": o, "y": o.colour}),
        ]
    s.say("is_mine", c=c, o=o, p=p)
    s.say("give_back", a=a, b=c, o=o)
    s.say("reward_food", a=a, c=c, f=f)
    return [
        ("where_found", {"o": o, "s": spot}),
        ("who_has", {"a": c, "o": o}),
        ("who_owns", {"a": c, "o": o}),
        ("who_found", {"b": a, "o": o}),
        ("which_food", {"a": a, "c": c, "f": f}),
    ]


def _about_world(s: Scene) -> Asked:
    town = s.draw.pick(WORLD[s.split])
    t, r, e, x, b = town.name, town.river.name, town.trade, town.animal, town.master
    s.say("town", t=t, r=r)
    s.say("town_trade", t=t, e=e)
    asked: Asked = [("which_river", {"t": t, "r": r}), ("which_trade", {"t": t, "e": e})]
    blocks = s.draw.shuffled(range(4))[:2]
    if 0 in blocks:
        s.say("master", t=t, b=b, e=e)
        asked.append(("which_master", {"t": t, "b": b, "e": e}))
    if 1 in blocks:
        s.say("town_bridges", t=t, r=r, n=town.bridges)
        asked.append(("how_many_bridges", {"t": t, "n": town.bridges}))
    if 2 in blocks:
        s.say("town_market", t=t, r=r, d=town.day, e=e)
        asked.append(("which_day", {"t": t, "d": town.day}))
    if 3 in blocks:
        s.say("animal", x=x, r=r)
        s.say("animal_coat", x=x, y=town.colour)
        s.say("animal_feed", x=x, i=town.feed)
        asked.append(("which_coat", {"x": x, "y": town.colour}))
        asked.append(("which_feed", {"x": x, "i": town.feed}))
    return asked


PASSAGES: tuple[Callable[[Scene], Asked], ...] = (
    _gift,
    _hidden,
    _lost,
    _swapped,
    _sold,
    _rewarded,
    _about_world,
    _about_world,
    _about_world,
)
