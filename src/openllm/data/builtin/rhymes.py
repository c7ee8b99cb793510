# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Rhymes that grow: each line says the one before again and puts one person in front of it.

Nothing teaches a small model to copy names as fast as text that repeats itself (docs/LOG.md).

Facts: `home a t` · `owner o a` · `follows b a` in the chain b stands before a.
"""

from openllm.data.builtin.names import Split
from openllm.data.builtin.scene import Draw, Scene
from openllm.data.builtin.template import Act

VERSES = {
    "this": ("This is", "found", "met", "thanked", "called", "taught"),
    "know": ("I know", "mended", "greeted", "followed", "hugged", "woke"),
    "all": ("Everybody knows", "painted", "visited", "amused", "helped", "praised"),
    "tell": ("Let me tell you of", "sold", "invited", "warned", "fed", "missed"),
}
"""Name -> how each line begins, and what people do: the first one to the thing."""

PEOPLE = "abcABC"


def _acts() -> dict[str, Act]:
    acts = {}
    for verse, (opening, *deeds) in VERSES.items():
        acts[f"rhyme_{verse}_0"] = Act(
            (f"{opening} {{a}} of {{t}}.",), new="at", makes=("home a t",)
        )
        chain, known = "the {o} of {a} of {t}", ("home a t",)
        new, fact = "o", "owner o a"
        for line, deed in enumerate((*deeds, ""), 1):
            form = f"{opening} {chain}."
            acts[f"rhyme_{verse}_{line}"] = Act((form,), new=new, needs=known, makes=(fact,))
            before, known = new, (*known, fact)
            if deed:
                new = PEOPLE[line]
                chain, fact = f"{{{new}}} who {deed} {chain}", f"follows {new} {before}"
    return acts


RHYME_ACTS = _acts()


def rhyme(draw: Draw, split: Split) -> str:
    """One rhyme of five to seven lines."""
    scene = Scene(draw, split, RHYME_ACTS)
    count = draw.number(4, 6)
    slots = {letter: scene.person() for letter in PEOPLE[:count]}
    town, thing = scene.town(), scene.thing()
    verse = draw.pick(tuple(VERSES))
    for line in range(count + 1):
        scene.say(f"rhyme_{verse}_{line}", **slots, t=town, o=thing)
    return scene.text()
