# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Sentence templates: the small language in which the builtin grammar is written.

    [Soon|At last], <a> gave the {o} to {b}.

    [x|y]   one of these           {o.colour}  a part or form of what the slot holds
    {b}     the slot b             <a>         the subject: its name, or he/she when it was
                                               already the subject of the previous sentence
    <o>     a thing, with or       <a=>        the subject, always by name
            without its colour

A slot's letter says what it holds (`KINDS`). An `Act` is a group of templates that say the same
thing, with the facts that must hold before (`needs`), that are stated and may be known already
(`says`), and that hold afterwards (`makes`).
"""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

KINDS = (
    dict.fromkeys("abcABC", "person")
    | dict.fromkeys("ou", "thing")
    | dict.fromkeys("tv", "town")
    | dict.fromkeys("kmn", "number")
    | {"d": "day", "e": "trade", "f": "food", "g": "goods", "h": "hour", "i": "feed"}
    | {"j": "plan", "l": "tool", "p": "place", "q": "trait", "r": "river", "s": "spot"}
    | {"w": "praise", "x": "animal", "y": "colour", "z": "source"}
)
"""What each slot letter holds."""

PRONOUNS = ("he", "his", "him", "He", "His")

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_THING = re.compile(r"<([ou])>")
_SUBJECT = re.compile(r"<(\w)(=?)>")
SLOT = re.compile(r"\{(\w)(?:\.(\w+))?\}")


@dataclass(frozen=True)
class Variant:
    """One template with all choices made, as a format string.

    `refers` names the slot that only a pronoun stands for: its person must be in focus, that is,
    the subject of the previous sentence. `subject` is in focus afterwards.
    """

    form: str
    subject: str | None
    refers: str | None


@dataclass(frozen=True)
class Act:
    """Templates that say the same thing, and their effect on the facts.

    Attributes:
        lines: the templates.
        new: slots whose people, towns or things this act introduces.
        names: slots this act may mention without an introduction.
        needs: facts that must hold, e.g. `("has o a", "!found o s")`; `!` means must not hold.
        says: facts that are stated: compared with what is known, then kept.
        makes: facts that hold afterwards.
        rule: arithmetic that no list of facts can express; see `grammar_numbers.py`.
    """

    lines: tuple[str, ...]
    new: str = ""
    names: str = ""
    needs: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    rule: Callable[..., Any] | None = None

    @cached_property
    def variants(self) -> tuple[tuple[tuple[Variant, ...], tuple[Variant, ...]], ...]:
        """For each line, the variants that name everybody, and those that need a focus."""
        groups = []
        for line in self.lines:
            variants = _expand(line)
            free = tuple(v for v in variants if v.refers is None)
            groups.append((free, tuple(v for v in variants if v.refers is not None)))
        return tuple(groups)

    @cached_property
    def free_lines(self) -> tuple[int, ...]:
        """Indices of the lines that can be said whoever is in focus."""
        return tuple(i for i, (free, _) in enumerate(self.variants) if free)


def _expand(line: str) -> list[Variant]:
    """All variants of one template line."""
    pieces = _CHOICE.split(
        _THING.sub(r"[{\1}|{\1.thing}]", line)
    )  # text, choices, text, choices, ..., text
    options = [piece.split("|") if i % 2 else [piece] for i, piece in enumerate(pieces)]
    variants = []
    for parts in itertools.product(*options):
        text = "".join(parts)
        subject = _SUBJECT.search(text)
        if subject is None:
            variants.append(_variant(text, None))
            continue
        letter, named = subject.groups()
        forms = [f"{{{letter}}}"]
        if not named:
            forms.append(f"{{{letter}.{'He' if subject.start() == 0 else 'he'}}}")
        variants += [
            _variant(text[: subject.start()] + form + text[subject.end() :], letter)
            for form in forms
        ]
    return variants


def _variant(form: str, subject: str | None) -> Variant:
    slots = SLOT.findall(form)
    people = {letter for letter, _ in slots if KINDS[letter] == "person"}
    named = {letter for letter, part in slots if letter in people and part not in PRONOUNS}
    unnamed = people - named
    if len(unnamed) > 1:
        raise AssertionError(f"two people are meant by pronouns only: {form!r}")
    refers = unnamed.pop() if unnamed else None
    return Variant(form, subject or refers, refers)
