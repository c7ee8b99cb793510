# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Sentences of the encyclopaedia of the invented world (`world.py` holds the facts).

Facts: `river t r` · `trade t e` · `bridges t n` · `market t d` · `master t b` · `town b t` ·
`craft b e` · `years b n` · `near x r` · `coat x y` · `feed x i` · `hour x h` · `source r z` ·
`water r y` · `hours r n`.
"""

from openllm.data.builtin.template import Act

TOWN_ACTS = {
    "town": Act(
        (
            "{t} is a [small|quiet|busy|proud|very old] town on the river {r}.",
            "The town of {t} lies [in a bend of|on both sides of|on the banks of] the river {r}.",
            "On the river {r} lies the [small|busy|old|pretty] town of {t}.",
            "The river {r} flows through the middle of {t}, a [small|busy|old] town.",
        ),
        names="tr",
        says=("river t r",),
    ),
    "town_trade": Act(
        (
            "Most [people|families] in {t} are {e.all}.",
            "Many {e.all} work in {t}, where {e.raw} becomes {e.ware}.",
            "The {e.all} of {t} turn {e.raw} into {e.ware}.",
            "One can hear the {e.all} of {t} at work from early morning.",
            "Every child in {t} knows how to make {e.ware}.",
        ),
        says=("trade t e",),
    ),
    "town_ware": Act(
        (
            "Boats carry {e.ware} from {t} down the {r}.",
            "The best {e.ware} on the {r} come from {t}.",
            "People travel up the {r} to {t} to buy {e.ware}.",
        ),
        says=("trade t e", "river t r"),
    ),
    "town_bridges": Act(
        (
            "{t} has {n} bridges over the {r}.",
            "In {t} there are {n} bridges over the {r}.",
            "{n} bridges cross the {r} in {t}.",
        ),
        says=("bridges t n", "river t r"),
    ),
    "town_market": Act(
        (
            "The market in {t} is held on {d}.",
            "Every {d} the people of {t} hold a market [by|beside] the {r}.",
            "On {d} the {e.all} of {t} sell their {e.ware}.",
        ),
        says=("market t d", "trade t e", "river t r"),
    ),
}

MASTER_ACTS = {
    "master": Act(
        (
            "The best known {e} in {t} is a {b.woman} named <b=>.",
            "<b=>, a {b.woman} [with strong hands|with a sharp eye|of few words], is the oldest "
            "{e} in {t}.",
            "A {b.woman} named <b=> is the leader of the {e.all} in {t}.",
        ),
        names="bt",
        says=("master t b", "town b t", "craft b e", "trade t e"),
    ),
    "master_years": Act(
        (
            "<b> has worked in {t} for {n} years.",
            "For {n} years <b=> has made {e.ware} in {t}.",
            "{n} years ago <b=> learned to make {e.ware}.",
        ),
        says=("town b t", "years b n", "craft b e"),
    ),
    "master_sells": Act(
        (
            "<b> sells {e.ware} in {t} every {d}.",
            "On {d} one can meet <b=> at the market in {t}.",
            "Every {d} <b=> takes {e.ware} to the market in {t}.",
        ),
        says=("town b t", "craft b e", "market t d"),
    ),
}

ANIMAL_ACTS = {
    "animal": Act(
        (
            "The {x} is a [shy|small|bold|clever] animal that lives along the {r}.",
            "Many {x.all} live [along|on the banks of] the {r}.",
            "Along the {r} one can find the {x}.",
        ),
        names="xr",
        says=("near x r",),
    ),
    "animal_coat": Act(
        (
            "The {x} is {y} [all over|from head to tail].",
            "A young {x} turns {y} in its first year.",
            "By its {y} colour one knows the {x} at once.",
        ),
        says=("coat x y",),
    ),
    "animal_feed": Act(
        (
            "The {x} eats {i}[ and little else|].",
            "What the {x} likes best is {i}.",
            "A {x} can smell {i} from far away.",
        ),
        says=("feed x i",),
    ),
    "animal_hour": Act(
        (
            "The {x} looks for {i} {h}.",
            "Near {t}, the {x} is often seen {h}.",
            "A {x} drinks from the {r} {h}.",
        ),
        says=("hour x h", "feed x i", "near x r"),
    ),
    "animal_luck": Act(
        (
            "The {e.all} of {t} say that a {x} brings luck.",
            "In {t}, a {x} is painted on every door.",
            "No {e} in {t} would ever harm a {x}.",
        ),
        says=("trade t e",),
    ),
}

RIVER_ACTS = {
    "river": Act(
        (
            "The {r} is a [long|calm|swift|cold] river from the {z}.",
            "The river {r} rises in the {z}.",
            "High up in the {z} begins the river {r}.",
        ),
        names="r",
        says=("source r z",),
    ),
    "river_towns": Act(
        (
            "Two towns lie on the {r}, {t} and {v}.",
            "The {r} flows past {t} and then past {v}.",
            "On its way the {r} passes {t} and {v}.",
        ),
        names="tv",
        says=("river t r", "river v r"),
    ),
    "river_water": Act(
        (
            "The water of the {r} is {y} [in spring|after rain].",
            "[In spring|After rain] the {r} turns {y}.",
        ),
        says=("water r y",),
    ),
    "river_boat": Act(
        (
            "It takes {n} hours to sail from {t} to {v} on the {r}.",
            "A boat on the {r} needs {n} hours from {t} to {v}.",
            "From {t} one can sail down the {r} to {v} in {n} hours.",
        ),
        says=("hours r n", "river t r", "river v r"),
    ),
}

WORLD_ACTS = TOWN_ACTS | MASTER_ACTS | ANIMAL_ACTS | RIVER_ACTS
