# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Sentences of the arithmetic documents, and the rules that check their numbers.

Facts: `count a n` · `item - g` what is counted · `sum left|right|sign|part` the current sum and how
far it has been worked out.
"""

from collections.abc import Mapping
from typing import Protocol

from openllm.data.builtin.template import Act


class Facts(Protocol):
    """What a rule may do: read facts, set facts, and make claims."""

    def get(self, relation: str, key: str) -> str | None:
        """What is known, from the text or from the world."""

    def set(self, relation: str, key: str, value: str) -> None:
        """Keep a fact."""

    def claim(self, holds: bool, message: str) -> None:
        """Count a claim, and a contradiction if it does not hold."""


Slots = Mapping[str, str]


def _number(facts: Facts, key: str, relation: str = "sum") -> int | None:
    value = facts.get(relation, key)
    return None if value is None else int(value)


def _pose(facts: Facts, sign: str, left: int | None, right: int) -> int | None:
    """Start a sum; returns its result."""
    for key, value in (("sign", sign), ("left", left), ("part", left), ("right", right)):
        facts.set("sum", key, str(value) if value is not None else "")
    if left is None:
        return None
    return left + right if sign == "+" else left - right


def _step(facts: Facts, slots: Slots, sign: str, wanted: str) -> None:
    """Check that `n + m = k` is true, continues the sum, and takes the tens or ones of `right`."""
    n, m, k = (int(slots[letter]) for letter in "nmk")
    facts.claim(k == (n + m if sign == "+" else n - m), f"{n} {sign} {m} is not {k}")
    right, part = facts.get("sum", "right"), facts.get("sum", "part")
    facts.claim(facts.get("sum", "sign") == sign, f"the sum in hand is not one with '{sign}'")
    facts.claim(part == str(n), f"the number to go on from is {part}, not {n}")
    if right:
        expected = int(right) // 10 * 10 if wanted == "tens" else int(right) % 10
        facts.claim(m == expected, f"the {wanted} of {right} are {expected}, not {m}")
    facts.set("sum", "part", str(k))


def _brings(facts: Facts, slots: Slots) -> None:
    left = _number(facts, slots["a"], "count")
    total = _pose(facts, "+", left, int(slots["m"]))
    if total is not None:
        facts.set("count", slots["a"], str(total))


def _gives_away(facts: Facts, slots: Slots) -> None:
    left, given = _number(facts, slots["a"], "count"), int(slots["m"])
    facts.claim(left is not None and left >= given, f"{slots['a']} does not have {given} to give")
    rest = _pose(facts, "-", left, given)
    if rest is not None:
        facts.set("count", slots["a"], str(rest))
    facts.set("count", slots["c"], str(given))


def _how_many_more(facts: Facts, slots: Slots) -> None:
    more, less = (_number(facts, slots[letter], "count") for letter in "ab")
    known = more is not None and less is not None
    facts.claim(known and more > less, f"{slots['a']} does not have more than {slots['b']}")
    if known:
        _pose(facts, "-", more, less)


def _result(facts: Facts, slots: Slots) -> None:
    part = facts.get("sum", "part")
    facts.claim(part == slots["n"], f"the steps give {part}, not {slots['n']}")


NUMBER_ACTS = {
    "has": Act(
        (
            "A {a.girl} named <a=> has {n} {g}.",
            "There are {n} {g} in the bag of a {a.girl} named <a=>.",
            "<a=>, a {a.girl} with a big bag, has {n} {g} in it.",
        ),
        new="a",
        makes=("count a n", "item - g"),
    ),
    "has_too": Act(
        (
            "A {b.girl} named <b=> has only {m} {g}.",
            "{a.His} friend, a {b.girl} named <b=>, has only {m} {g}.",
        ),
        new="b",
        needs=("item - g",),
        makes=("count b m",),
    ),
    "brings": Act(
        (
            "A {b.girl} named <b=> brings {m} more {g} to {a}.",
            "Then a {b.girl} named <b=> gives {m} more {g} to {a}.",
            "A {b.girl} named <b=> comes by, and {a} gets {m} more {g}.",
        ),
        new="b",
        needs=("item - g",),
        rule=_brings,
    ),
    "how_many": Act(
        ("How many {g} does {a} have now?", "How many {g} are there in the bag of {a} now?"),
        needs=("item - g",),
    ),
    "add_tens": Act(
        ("Add the tens: {n} + {m} = {k}.", "First, {n} + {m} = {k}."),
        rule=lambda facts, slots: _step(facts, slots, "+", "tens"),
    ),
    "add_ones": Act(
        ("Add the ones: {n} + {m} = {k}.", "Then, {n} + {m} = {k}."),
        rule=lambda facts, slots: _step(facts, slots, "+", "ones"),
    ),
    "has_now": Act(
        ("So {a} has {n} {g} now, thanks to {b}.", "With the gift of {b}, {a} now has {n} {g}."),
        needs=("count a n", "item - g"),
        rule=_result,
    ),
    "gives_away": Act(
        (
            "Later <a> gives {m} {g} to a {c.girl} named {c}.",
            "After lunch, <a> meets a {c.girl} named {c} and gives {c.him} {m} {g}.",
            "A {c.girl} named <c=> has none, and {a} gives {c.him} {m} {g}.",
        ),
        new="c",
        needs=("item - g",),
        rule=_gives_away,
    ),
    "how_many_left": Act(
        ("How many {g} does {a} have left?", "How many {g} are left in the bag of {a}?"),
        needs=("item - g",),
    ),
    "take_tens": Act(
        ("Take away the tens: {n} - {m} = {k}.", "First, {n} - {m} = {k}."),
        rule=lambda facts, slots: _step(facts, slots, "-", "tens"),
    ),
    "take_ones": Act(
        ("Take away the ones: {n} - {m} = {k}.", "Then, {n} - {m} = {k}."),
        rule=lambda facts, slots: _step(facts, slots, "-", "ones"),
    ),
    "has_left": Act(
        (
            "So {a} has {n} {g} left, and {c} has {m} {g}.",
            "So {c} has {m} {g}, and {a} has {n} {g} left.",
        ),
        needs=("count a n", "count c m", "item - g"),
        rule=_result,
    ),
    "how_many_more": Act(
        (
            "How many more {g} does {a} have than {b}?",
            "{a} has more {g} than {b}, but how many more?",
        ),
        needs=("item - g",),
        rule=_how_many_more,
    ),
    "has_more": Act(
        ("So {a} has {n} more {g} than {b}.", "So {b} needs {n} more {g} to have as many as {a}."),
        needs=("item - g",),
        rule=_result,
    ),
    "pupils": Act(
        (
            "A {a.girl} named <a=> and a {b.girl} named {b} are learning to count.",
            "A {a.girl} named <a=> is doing sums with a {b.girl} named {b}.",
        ),
        new="ab",
    ),
    "what_is": Act(
        ('"What is {n} + {m}, {b}?" asks <a=>.', "<a=> asks {b} to work out {n} + {m}."),
        rule=lambda facts, slots: _pose(facts, "+", int(slots["n"]), int(slots["m"])),
    ),
    "what_is_less": Act(
        ('"What is {n} - {m}, {b}?" asks <a=>.', "<a=> asks {b} to work out {n} - {m}."),
        rule=lambda facts, slots: _pose(facts, "-", int(slots["n"]), int(slots["m"])),
    ),
    "it_is": Act(
        ('"It is {n}, {a}," says <b=>.', "So the answer of {b} is {n}.", '"{n}!" says <b=>.'),
        rule=_result,
    ),
}
