# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Structured output: which tokens keep the text in a required form, by llguidance.

A `Grammar` is compiled once and shared; each continuation has a `GrammarState`, which advances
token by token. Who sends a structure may be hostile, so sizes are limited (`structure_limits.py`)
before the library sees it, and the library's own limits are set low.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from openllm.core.errors import ConfigError
from openllm.core.plugins import require
from openllm.engine.request import Structure
from openllm.engine.structure_limits import check_structure
from openllm.text.tokenizer import Tokenizer

LIMITS = {
    "initial_lexer_fuel": 300_000,
    "step_lexer_fuel": 50_000,
    "step_max_items": 20_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 100_000,
    "verbose_errors": False,
}
"""A fifth or so of the library's defaults: a step then takes tens of milliseconds at worst."""

WHITESPACE = r"[ \n\t\r]{1,24}"
"""Between the parts of a JSON text. Without an end a model may write nothing else for ever."""


class GrammarState:
    """Where one continuation stands in its structure.

    Attributes:
        failure: why it cannot go on, such as a structure that has become too complex; none if it
            can. The mask then allows nothing.
    """

    def __init__(self, matcher: Any, num_words: int) -> None:
        self._matcher = matcher
        self._num_words = num_words

    def mask(self) -> Tensor:
        """A bit for each id that may come next, packed into int32.

        Ids that end a text are allowed just when the text is complete.
        """
        words = torch.zeros(self._num_words, dtype=torch.int32)
        if not self._matcher.is_error():
            self._matcher.unsafe_compute_mask_ptr(words.data_ptr(), 4 * self._num_words)
            if self._matcher.is_error():
                words.zero_()
        return words

    def accept(self, token: int) -> bool:
        """Append a token; says whether the structure allows it. If not, it has failed."""
        return self._matcher.consume_token(token)

    def validate_draft(self, tokens: Sequence[int]) -> int:
        """How many of the tokens could be accepted one after the other."""
        return self._matcher.validate_tokens(list(tokens))

    def rollback(self, count: int) -> None:
        """Take back the last accepted tokens."""
        if count and not self._matcher.rollback(count):
            raise ValueError(f"cannot take back {count} tokens: {self.failure}")

    @property
    def is_complete(self) -> bool:
        """Whether the text could end here."""
        return self._matcher.is_accepting()

    @property
    def is_over(self) -> bool:
        """Whether the text is complete and cannot go on."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def failure(self) -> str | None:
        """See the class."""
        return _reason(self._matcher.get_error()) if self._matcher.is_error() else None


class Grammar:
    """A compiled structure for one vocabulary."""

    def __init__(self, matcher: Any, num_words: int) -> None:
        self._matcher = matcher
        self._num_words = num_words

    def start(self) -> GrammarState:
        """The state of an empty text."""
        return GrammarState(self._matcher.deep_copy(), self._num_words)


class _Vocabulary:
    """A tokenizer as llguidance wants it, and the key of what is compiled for it."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self.ends = sorted(tokenizer.end_ids)
        # without a token that ends a text, one beyond the vocabulary stands for it
        self.size = max(vocab_size, tokenizer.vocab_size) + (0 if self.ends else 1)
        self.eos_token_id = self.ends[0] if self.ends else self.size - 1
        self._key = (tokenizer.fingerprint, tuple(self.ends), self.size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Vocabulary) and other._key == self._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def special_token_ids(self) -> list[int]:
        """Ids that stand for no text."""
        return [index for index, found in enumerate(self._texts()) if not found]

    @property
    def tokens(self) -> list[bytes]:
        """The bytes of each id; a name for those that stand for no text."""
        return [found or f"<|{index}|>".encode() for index, found in enumerate(self._texts())]

    def __call__(self, text: str | bytes) -> list[int]:
        """Ids of a text."""
        whole = text if isinstance(text, str) else text.decode("utf-8", "replace")
        return self._tokenizer.encode(whole)

    def _texts(self) -> list[bytes]:
        tokenizer = self._tokenizer
        silent = {*tokenizer.controls.values(), *tokenizer.end_ids, *tokenizer.banned_ids}
        return [
            b""
            if index in silent or index >= tokenizer.vocab_size
            else tokenizer.token_bytes(index)
            for index in range(self.size)
        ]


@lru_cache(maxsize=8)
def _library_tokenizer(vocabulary: _Vocabulary) -> Any:
    ends = vocabulary.ends or [vocabulary.eos_token_id]
    return require("llguidance").LLTokenizer(vocabulary, eos_token=ends)


def compile_structure(structure: Structure, tokenizer: Tokenizer, vocab_size: int) -> Grammar:
    """Compile a structure, or find it compiled.

    Args:
        structure: what the new text must be.
        tokenizer: of the model.
        vocab_size: of the model, which may exceed the tokenizer's.

    Raises:
        ConfigError: it is invalid, too complex, or cannot be satisfied.
        MissingExtra: llguidance is not installed.
    """
    kind, value = structure.kind, structure.value
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text.encode()
    except (RecursionError, UnicodeEncodeError) as error:
        raise _refusal(kind, str(error)) from None
    check_structure(kind, text, value)
    return _compiled(kind, text, _Vocabulary(tokenizer, vocab_size))


@lru_cache(maxsize=32)
def _compiled(kind: str, text: str, vocabulary: _Vocabulary) -> Grammar:
    library = require("llguidance")
    tokenizer = _library_tokenizer(vocabulary)
    try:
        source = _source(library, kind, text)
    except ValueError as error:
        raise _refusal(kind, str(error)) from None
    limits = library.LLParserLimits(**LIMITS)
    matcher = library.LLMatcher(tokenizer, source, log_level=0, limits=limits)
    grammar = Grammar(matcher, (vocabulary.size + 31) // 32)
    first = grammar.start()
    allowed = first.mask()
    problem = _reason(matcher.get_error()) if matcher.is_error() else first.failure
    if problem is None and not allowed.any():
        problem = "no text satisfies it"
    if problem is not None:
        raise _refusal(kind, problem)
    return grammar


def _source(library: Any, kind: str, text: str) -> str:
    """The structure in the library's own format."""
    matcher = library.LLMatcher
    if kind == "regex":
        # \d means 0 to 9, as in patterns of JSON schemas; \w and \s know all of Unicode
        return matcher.grammar_from_lark(f"start: /{library.regex_to_lark(text, 'd')}/")
    if kind == "grammar":
        return matcher.grammar_from_lark(text)
    if kind == "choice":
        # one terminal: a rule of many would have each of them at once in the parser
        texts = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in json.loads(text))
        return matcher.grammar_from_lark(f"start: CHOICE\nCHOICE: {texts}")
    if text == "false":
        raise ValueError("no text satisfies it")
    # the library adds its options to an object
    schema = {"null": '{"type": "object"}', "true": "{}"}.get(text, text)
    return matcher.grammar_from_json_schema(schema, None, {"whitespace_pattern": WHITESPACE})


def _refusal(kind: str, problem: str) -> ConfigError:
    return ConfigError(f"the structure ({kind}) cannot be used: {_reason(problem)}; change it")


def _reason(error: str) -> str:
    """What matters of an error of the library, which may quote the whole structure."""
    lines = [line.strip() for line in error.strip().splitlines()] or [""]
    if lines[0].startswith("NoExtension"):
        return "no text satisfies it"
    text = " ".join([lines[0], *(line for line in lines[1:] if line.startswith("error:"))])
    return text if len(text) <= 300 else f"{text[:300]}..."
