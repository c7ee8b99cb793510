# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Addition and subtraction in steps: the tens of the second number first, then its ones.

A sum `left + right` whose right side has both tens and ones belongs to one split, by a hash; the
sums of the single steps (`47 + 30`, `77 + 8`) may appear in every split.
"""

import re

from openllm.data.builtin.grammar_numbers import NUMBER_ACTS
from openllm.data.builtin.lexicon import GOODS
from openllm.data.builtin.names import Split, split_of
from openllm.data.builtin.scene import Draw, Scene

_OPERATION = re.compile(r"(\d+) ([+-]) (\d+)")


def held_by(operation: str) -> Split | None:
    """The split that may show `47 + 38`; None for sums that all may show (see above)."""
    match = _OPERATION.fullmatch(operation)
    if match is None:
        raise ValueError(f"not an operation of the form '47 + 38': {operation!r}")
    right = int(match[3])
    return split_of(operation) if right > 10 and right % 10 else None


def arithmetic(draw: Draw, split: Split) -> str:
    """One document: a word problem in two parts, a comparison, or three bare sums."""
    scene = Scene(draw, split, NUMBER_ACTS)
    draw.pick((_more_and_less, _more_and_less, _compare, _lesson))(scene)
    return scene.text()


def _seconds(split: Split, sign: str, n: int) -> list[int]:
    """The numbers that this split may add to n or subtract from it."""
    last = n - 2 if sign == "-" else 79
    return [m for m in range(11, last + 1) if held_by(f"{n} {sign} {m}") == split]


def _operands(s: Scene, sign: str) -> tuple[int, int]:
    """Two numbers whose operation this split may show."""
    while True:
        n = s.draw.number(21, 89)
        m = s.draw.number(11, n - 2 if sign == "-" else 79)
        if held_by(f"{n} {sign} {m}") == s.split:
            return n, m


def _steps(s: Scene, sign: str, n: int, m: int) -> int:
    act = "add" if sign == "+" else "take"
    sign_of = 1 if sign == "+" else -1
    tens = m // 10 * 10
    s.say(f"{act}_tens", n=n, m=tens, k=n + sign_of * tens)
    s.say(f"{act}_ones", n=n + sign_of * tens, m=m - tens, k=n + sign_of * m)
    return n + sign_of * m


def _more_and_less(s: Scene) -> None:
    """a gets some from b, then gives some away."""
    a, b, g = s.person(), s.person(), s.draw.pick(GOODS)
    taken: list[int] = []
    while not taken:
        n, m = _operands(s, "+")
        taken = _seconds(s.split, "-", n + m)
    s.say("has", a=a, n=n, g=g)
    s.say("brings", a=a, b=b, m=m, g=g)
    s.say("how_many", a=a, g=g)
    total = _steps(s, "+", n, m)
    s.say("has_now", a=a, b=b, n=total, g=g)
    c = s.person()
    m = s.draw.pick(taken)
    s.say("gives_away", a=a, c=c, m=m, g=g)
    s.say("how_many_left", a=a, g=g)
    rest = _steps(s, "-", total, m)
    s.say("has_left", a=a, c=c, n=rest, m=m, g=g)


def _compare(s: Scene) -> None:
    """a has more than b: how many more?"""
    a, b, g = s.person(), s.person(), s.draw.pick(GOODS)
    n, m = _operands(s, "-")
    s.say("has", a=a, n=n, g=g)
    s.say("has_too", a=a, b=b, m=m, g=g)
    s.say("how_many_more", a=a, b=b, g=g)
    rest = _steps(s, "-", n, m)
    s.say("has_more", a=a, b=b, n=rest, g=g)


def _lesson(s: Scene) -> None:
    """a asks b for three sums."""
    a, b = s.person(), s.person()
    s.say("pupils", a=a, b=b)
    for _ in range(3):
        sign = s.draw.pick("+-")
        n, m = _operands(s, sign)
        s.say("what_is" if sign == "+" else "what_is_less", a=a, b=b, n=n, m=m)
        result = _steps(s, sign, n, m)
        s.say("it_is", a=a, b=b, n=result)
