# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Cumulative rhymes, and songs about two people: text that repeats the same names again and again.

Nothing else teaches a small model as fast to look back at names (docs/LOG.md). Each line of a
cumulative rhyme repeats the previous one and puts one person in front of it; each line of a song
names two people in turn.

Facts: `home a t` · `owner o a` · `follows b a` b comes before a in the chain.
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
"""Name -> how each line begins, and what people do; the first verb applies to the thing."""

PEOPLE = "abcABC"

SONG_LINES = (
    "{a} called {b}, and {b} called {a}.",
    "{a} waved to {b}, and {b} waved to {a}.",
    "When {a} laughed, {b} laughed too.",
    "Where {a} went, {b} went too.",
    "{a} stood beside {b}, and {b} stood beside {a}.",
    "{a} sang for {b}, and {b} danced for {a}.",
    "If {a} was lost, {b} would look for {a}.",
    "{a} and {b} climbed up, {b} and {a} came down again.",
    "{a} told {b} a secret, and {b} kept it for {a}.",
    "{a} never forgot {b}, and {b} never forgot {a}.",
    "Nobody saw {a} without {b}, and nobody saw {b} without {a}.",
    "{a} lent {b} a coat, and {b} gave it back to {a}.",
)


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


SONG_ACTS = {
    "song_begin": Act(("This is the song of {a} and {b}.",), new="ab"),
    **{f"song_{number}": Act((line,)) for number, line in enumerate(SONG_LINES)},
    "song_end": Act(("And so ends the song of {a} and {b}.",)),
}
RHYME_ACTS = _acts() | SONG_ACTS


def rhyme(draw: Draw, split: Split) -> str:
    """One rhyme or song."""
    return _song(draw, split) if draw.chance(0.5) else _growing_rhyme(draw, split)


def _song(draw: Draw, split: Split) -> str:
    """Six to nine lines between a beginning and an end."""
    scene = Scene(draw, split, RHYME_ACTS)
    pair = (scene.person(), scene.person())
    scene.say("song_begin", a=pair[0], b=pair[1])
    for number in draw.shuffled(range(len(SONG_LINES)))[: draw.number(6, 9)]:
        first = draw.number(0, 1)
        scene.say(f"song_{number}", a=pair[first], b=pair[1 - first])
    scene.say("song_end", a=pair[0], b=pair[1])
    return scene.text()


def _growing_rhyme(draw: Draw, split: Split) -> str:
    """Five to seven lines."""
    scene = Scene(draw, split, RHYME_ACTS)
    count = draw.number(4, 6)
    slots = {letter: scene.person() for letter in PEOPLE[:count]}
    town, thing = scene.town(), scene.thing()
    verse = draw.pick(tuple(VERSES))
    for line in range(count + 1):
        scene.say(f"rhyme_{verse}_{line}", **slots, t=town, o=thing)
    return scene.text()
