# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The checker: parses text with the builtin grammar and scores how consistent its entities are.

Each sentence is parsed (`grammar.py`), its slots are compared with what the text has said before,
and the facts it states are kept for later sentences. What counts as one claim:

- a person, town or thing that is mentioned: has it been introduced?
- the colour of a thing, and the gender of a pronoun or noun: does it match the known one?
- each fact that the act needs, and each stated fact about which something is known, from the text
  or from the table of the invented world.

Introducing something new claims nothing; introducing something known is a contradiction.
"""

import re
from dataclasses import dataclass

from openllm.data.builtin.grammar import ACTS, Reading, Word, read
from openllm.data.builtin.template import KINDS, PRONOUNS
from openllm.data.builtin.world import WORLD_FACTS, WORLD_NAMES

_SENTENCE_END = re.compile(r"""[.!?]+["”]?(?=\s+["“A-Z0-9](?!nswer:))|\n\s*\n|$""")
_MARK = re.compile(r"""[.!?]["”]?\s*$""")
_LONG_FRAGMENT = 30  # words; a longer ending without a full stop was not cut off, it never had one
_INTRODUCED = ("person", "thing", "animal", "town", "river")  # kinds that need an introduction
_NAME = re.compile(r"\b[A-Z][a-z]+")


@dataclass(frozen=True)
class Consistency:
    """How consistent a text is.

    Attributes:
        claims: claims that could be checked.
        consistent: claims that agree with what was known.
        sentences: all sentences, except one that is cut off at the end.
        understood: sentences that the grammar can parse.
        errors: (sentence, what is wrong) for each contradiction.
        unread: the sentences that the grammar cannot parse.
    """

    claims: int
    consistent: int
    sentences: int
    understood: int
    errors: tuple[tuple[str, str], ...]
    unread: tuple[str, ...]

    @property
    def score(self) -> float:
        """Share of the checked claims that are consistent; 0 if nothing could be checked."""
        return self.consistent / self.claims if self.claims else 0.0

    @property
    def coverage(self) -> float:
        """Share of the sentences that were understood; 0 if there are none."""
        return self.understood / self.sentences if self.sentences else 0.0

    @property
    def headline(self) -> float:
        """Like `score`, with each sentence that was not understood counted as a failed claim."""
        total = self.claims + self.sentences - self.understood
        return self.consistent / total if total else 0.0


def consistency(text: str, *, prompt: str = "") -> Consistency:
    """Check a text.

    Args:
        text: the text; with a prompt, the text that follows it.
        prompt: read first and believed, but not scored; its names count as introduced.
    """
    ledger = _Ledger()
    if prompt:
        text = _read_prompt(ledger, prompt, text)
    sentences = [sentence for sentence, _ in split_sentences(text)]
    if len(sentences) > 1 and _is_cut(sentences[-1]):
        sentences.pop()
    unread = tuple(sentence for sentence in sentences if not ledger.take(sentence))
    return Consistency(
        ledger.claims,
        ledger.claims - len(ledger.errors),
        len(sentences),
        len(sentences) - len(unread),
        tuple(ledger.errors),
        unread,
    )


def _read_prompt(ledger: "_Ledger", prompt: str, text: str) -> str:
    """Take in the complete sentences of the prompt; returns what is left to score."""
    whole = prompt + text
    given = 0
    for sentence, end in split_sentences(whole):
        if end > len(prompt):
            if read(sentence) is None:  # half prompt, half text
                ledger.believe(prompt[given:])
            break
        if not ledger.take(sentence):
            ledger.believe(sentence)
        given = end
    ledger.forget_score()
    return whole[given:]


def _is_cut(sentence: str) -> bool:
    return not _MARK.search(sentence) and len(sentence.split()) <= _LONG_FRAGMENT


def split_sentences(text: str) -> list[tuple[str, int]]:
    """The sentences of a text and the position where each ends; a question includes its answer."""
    sentences = []
    start = 0
    for end in (match.end() for match in _SENTENCE_END.finditer(text)):
        sentence = text[start:end].strip()
        if sentence:
            sentences.append((sentence, end))
        start = end
    return sentences


class _Slot:
    """What one slot of a sentence was filled with."""

    def __init__(self) -> None:
        self.value: str | None = None
        self.colour: str | None = None
        self.genders: set[str] = set()
        self.torn = False  # filled with two different values in one sentence


class _Ledger:
    """What is known while a text is read, and the score so far."""

    def __init__(self) -> None:
        self.claims = 0
        self.errors: list[tuple[str, str]] = []
        self._facts: dict[tuple[str, str], str] = {}
        self._known: dict[str, set[str]] = {kind: set() for kind in _INTRODUCED}
        self._focus: str | None = None
        self._sentence = ""

    # The interface for arithmetic rules (grammar_numbers.Facts).

    def get(self, relation: str, key: str) -> str | None:
        return self._facts.get((relation, key), WORLD_FACTS.get((relation, key)))

    def set(self, relation: str, key: str, value: str) -> None:
        self._facts[relation, key] = value

    def claim(self, holds: bool, message: str) -> None:
        self.claims += 1
        if not holds:
            self.errors.append((self._sentence, message))

    def forget_score(self) -> None:
        """Reset the score; what is known stays."""
        self.claims = 0
        self.errors = []

    def believe(self, text: str) -> None:
        """Treat the names in a text that cannot be parsed as introduced."""
        for name in _NAME.findall(text):
            for known in self._known.values():
                known.add(name)

    def take(self, sentence: str) -> bool:
        """Parse one sentence; False if the grammar does not know it."""
        found = read(sentence)
        if found is None:
            self._focus = None
            return False
        reading, words = found
        self._sentence = sentence
        act = ACTS[reading.act]
        slots = self._fill(reading, words)
        self._mentions(slots, act.new, act.names)
        values = {letter: slot.value for letter, slot in slots.items() if slot.value}
        for term in act.needs:
            self._need(term, values)
        for term in act.says:
            self._say(term, values)
        for term in act.makes:
            if resolved := _resolve(term, values):
                self.set(*resolved)
        if act.rule and all(slot.value for slot in slots.values()):
            act.rule(self, values)
        subject = reading.variant.subject
        self._focus = values.get(subject) if subject else None
        return True

    def _fill(self, reading: Reading, words: list[Word]) -> dict[str, _Slot]:
        """Put the words of a sentence into the slots of its template."""
        slots: dict[str, _Slot] = {}
        for part, word in zip(reading.parts, words, strict=True):
            if not part.slot:
                continue
            slot = slots.setdefault(part.slot, _Slot())
            if part.part in PRONOUNS or part.kind in ("girl", "woman", "grandmother"):
                slot.genders.add(word.meaning)
                if part.part in ("his", "him") and word.letters in {"his", "him"} - {part.part}:
                    self.claim(False, f"'{word.letters}' stands where '{part.part}' belongs")
            elif KINDS[part.slot] == "thing" and part.kind == "colour":
                slot.torn |= slot.colour not in (None, word.meaning)
                slot.colour = word.meaning
            else:
                slot.torn |= slot.value not in (None, word.meaning)
                slot.value = word.meaning
        refers = reading.variant.refers
        if refers is not None and (slot := slots.get(refers)) is not None:
            slot.value = self._focus
            if slot.value is None:
                self.claim(False, "a pronoun stands for nobody in particular")
        for letter, slot in slots.items():
            if slot.torn:
                self.claim(False, f"one {KINDS[letter]} is called by two names")
        return slots

    def _mentions(self, slots: dict[str, _Slot], new: str, names: str) -> None:
        """Check that mentions are introduced and match what is known, and that slots differ."""
        taken: dict[tuple[str, str], str] = {}
        for letter, slot in slots.items():
            kind = KINDS[letter]
            if kind not in _INTRODUCED or slot.value is None:
                continue
            if taken.setdefault((kind, slot.value), letter) != letter:
                self.claim(False, f"{slot.value} stands in two roles that exclude each other")
            known = slot.value in self._known[kind]
            if letter in new and known:
                self.claim(False, f"{slot.value} is introduced although known already")
            elif letter not in new + names:
                self.claim(known, f"{slot.value} has not been introduced")
            elif known:
                self.claim(True, "")
            self._known[kind].add(slot.value)
            if slot.colour:
                self._compare("colour", slot.value, slot.colour, fresh=letter in new)
            for gender in sorted(slot.genders):
                self._compare("gender", slot.value, gender, fresh=letter in new)

    def _compare(self, relation: str, key: str, value: str, fresh: bool) -> None:
        """Check a property, or keep it if nothing is known or its bearer is new."""
        known = None if fresh and (relation, key) not in WORLD_FACTS else self.get(relation, key)
        if known is None:
            self.set(relation, key, value)
        else:
            self.claim(known == value, f"{key} is {known}, not {value}")

    def _need(self, term: str, values: dict[str, str]) -> None:
        """Check that a fact holds, or with `!` that it does not."""
        if not (resolved := _resolve(term.lstrip("!"), values)):
            return
        relation, key, value = resolved
        known = self.get(relation, key)
        if term.startswith("!"):
            self.claim(known != value, f"{relation} of {key} is {value} all the same")
        else:
            self.claim(known == value, f"{relation} of {key} is {known or 'unknown'}, not {value}")

    def _say(self, term: str, values: dict[str, str]) -> None:
        """Compare a stated fact with what is known, then keep it."""
        if not (resolved := _resolve(term, values)):
            return
        relation, key, value = resolved
        known = self.get(relation, key)
        if known is not None:
            self.claim(known == value, f"{relation} of {key} is {known}, not {value}")
        elif key in WORLD_NAMES or value in WORLD_NAMES:
            self.claim(False, f"the world knows nothing of {value} as {relation} of {key}")
        self.set(relation, key, value)


def _resolve(term: str, values: dict[str, str]) -> tuple[str, str, str] | None:
    """`has o a` -> ("has", the thing, the person); None if a slot is not mentioned."""
    relation, *arguments = term.split()
    resolved = [values.get(word) if len(word) == 1 and word != "-" else word for word in arguments]
    if None in resolved:
        return None
    key, value = resolved
    return relation, str(key), str(value)
