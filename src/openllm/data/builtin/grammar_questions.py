# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Questions with their answers. All facts are `needs`: the passage must have stated the answer."""

from openllm.data.builtin.template import Act


def _question(question: str, *answers: str, needs: tuple[str, ...]) -> Act:
    lines = tuple(f"Question: {question}\nAnswer: {answer}" for answer in answers)
    return Act(lines, needs=needs)


QUESTION_ACTS = {
    "who_has": _question(
        "Who has the {o} now?", "{a}.", "{a} has the {o}.", "The {o} is with {a}.",
        needs=("has o a",),
    ),
    "where_is": _question(
        "Where is the {o} now?", "It is {s}.", "The {o} is {s}.", needs=("has o s",)
    ),
    "where_found": _question(
        "Where was the {o}?", "It was {s}.", "The {o} was {s}.", needs=("found o s",)
    ),
    "who_found": _question(
        "Who found the {o}?", "{b}.", "{b} found the {o}.", needs=("finder o b",)
    ),
    "who_gave": _question(
        "Who gave the {o} to {b}?", "{a}.", "{a} gave the {o} to {b}.",
        needs=("giver o a", "has o b"),
    ),
    "who_owns": _question(
        "To whom does the {o} belong?", "To {a}.", "It belongs to {a}.",
        "The {o} belongs to {a}.", needs=("owner o a",),
    ),
    "what_colour": _question(
        "What colour is the {o.thing} in the story of {a}?", "{y}.", "It is {y}.",
        "The {o.thing} is {y}.",
        needs=("colour o y",),
    ),
    "what_price": _question(
        "How much did the {o} cost?", "{n} coins.", "It cost {n} coins.",
        "The {o} cost {n} coins.", needs=("price o n",),
    ),
    "where_home": _question(
        "Where does {a} live?", "In {t}.", "{a} lives in {t}.", needs=("home a t",)
    ),
    "where_went": _question(
        "Where did {a} go?", "To the {p}.", "{a} went to the {p}.", needs=("at a p",)
    ),
    "which_friend": _question(
        "Who is the best friend of {a}?", "{b}.", "The best friend of {a} is {b}.",
        needs=("friend a b",),
    ),
    "which_food": _question(
        "What did {a} get from {c}?", "Some {f}.", "{a} got some {f} from {c}.",
        needs=("ate a f", "fed a c"),
    ),
    "which_river": _question(
        "On which river does {t} lie?", "On the {r}.", "{t} lies on the {r}.",
        needs=("river t r",),
    ),
    "which_trade": _question(
        "What do people make in {t}?", "They make {e.ware}.", "People in {t} make {e.ware}.",
        needs=("trade t e",),
    ),
    "which_day": _question(
        "On which day is the market in {t}?", "On {d}.", "The market in {t} is on {d}.",
        needs=("market t d",),
    ),
    "which_master": _question(
        "Who is the best known {e} in {t}?", "{b}.", "The best known {e} in {t} is {b}.",
        needs=("master t b", "trade t e"),
    ),
    "how_many_bridges": _question(
        "How many bridges are there in {t}?", "There are {n} bridges.", "{t} has {n} bridges.",
        needs=("bridges t n",),
    ),
    "which_coat": _question(
        "What colour is the {x}?", "It is {y}.", "The {x} is {y}.", needs=("coat x y",)
    ),
    "which_feed": _question(
        "What does the {x} eat?", "It eats {i}.", "The {x} eats {i}.", needs=("feed x i",)
    ),
}  # fmt: skip
