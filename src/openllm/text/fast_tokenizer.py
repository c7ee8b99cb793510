# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Tokenizers of imported models: `tokenizer.json`, run by the `tokenizers` library.

The library finds added tokens in any text. Here those that control a model are renamed to names
that no text contains, so ordinary text cannot spell them. Added tokens of white space, which many
vocabularies have for indented code, are ordinary text.
"""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers

from openllm.core.errors import TokenizerError
from openllm.core.files import read_json, recover_folder
from openllm.text.fast_vocabulary import (
    add_tokens,
    check_content,
    decoding_of,
    fingerprint_of,
    pieces_of,
    rename_pieces,
    unknown_piece,
)
from openllm.text.hf_folder import TokenizerFacts, read_facts
from openllm.text.tokenizer import FAST_FILE, Tokenizer, whole_characters
from openllm.text.words import SPACE, code_of

_MEND = "copy the model folder again"
_SAMPLE = "a"


class FastTokenizer(Tokenizer):
    """A `tokenizer.json`: byte-level BPE, or BPE or unigram with U+2581 for spaces.

    Control tokens are the special ones, those that have a role such as eos, and all other added
    tokens but those of white space. Special ones decode to nothing, the others (such as `<think>`)
    to their names.
    """

    def __init__(
        self,
        content: Mapping[str, Any],
        source: str = "the tokenizer",
        facts: TokenizerFacts = TokenizerFacts(),  # noqa: B008  (frozen)
    ) -> None:
        """Build it from the contents of a `tokenizer.json`.

        Args:
            content: the JSON object.
            source: names it in errors.
            facts: from the files beside it.

        Raises:
            TokenizerError: it is no tokenizer, or of another kind.
        """
        self._state = (content, source, facts)
        check_content(content, source)
        content = add_tokens({**content, "truncation": None, "padding": None}, facts, source)
        self.fingerprint = fingerprint_of(content)
        named = pieces_of(content)
        special = {token["content"] for token in content["added_tokens"] if token.get("special")}
        special |= {*facts.special.values(), *facts.more_special, unknown_piece(content["model"])}
        added = {token["content"] for token in content["added_tokens"]}
        controls = {name for name in added if not _is_blank(name)} | (special & named.keys())
        self.controls = {name: named[name] for name in sorted(controls, key=named.__getitem__)}
        self.vocab_size = max(named.values()) + 1
        self._code = code_of(self.vocab_size)
        self._pieces = {index: name for name, index in named.items()}
        decoding = decoding_of(content, source)
        self._bytes = {i: decoding.surface(name) for name, i in named.items()}
        if decoding.byte_level:  # added tokens are written as they are
            self._bytes |= {named[name]: name.encode("utf-8", "replace") for name in added}
        self._bytes |= {named[name]: b"" for name in special & named.keys()}
        self.byte_ids = frozenset(i for name, i in named.items() if decoding.is_byte(name))
        self._adds_space = decoding.adds_space

        # names of private-use characters and a number that cannot be guessed
        secret = secrets.token_hex(16)
        self._alias = {i: f"\uf8f0{secret}:{i}\uf8f1" for i in self.controls.values()}
        aliases = {name: self._alias[index] for name, index in self.controls.items()}
        self._tokenizer = _build(rename_pieces(content, aliases, secret), named, aliases, source)
        self._name_ids(facts, source)

    def _name_ids(self, facts: TokenizerFacts, source: str) -> None:
        """Set the ids of special tokens and what a document begins with."""
        found = [self.controls.get(facts.special.get(f"{role}_token", "")) for role in _ROLES]
        self.bos_id, self.eos_id, self.pad_id, self.unk_id = found
        if self.unk_id is None:
            self.unk_id = self.controls.get(unknown_piece(self._state[0]["model"]) or "")
        # its post-processor decides alone, as in transformers: add_bos_token is for other files
        with _library_errors(source):
            sample = self._tokenizer.encode(_SAMPLE)
        self.prefix = sample.ids[: (*sample.special_tokens_mask, 0).index(0)]
        if len(self.prefix) > 1 or not set(self.prefix) <= self._pieces.keys():
            raise TokenizerError(
                f"{source} puts the ids {self.prefix} before a text; OpenLLM can use tokenizers "
                "that put one token of the vocabulary or none there: correct its post_processor"
            )
        self.end_ids = self._find_end_ids(facts, source)
        # a model knows which of its control tokens to use, but not ids without a token
        self.banned_ids = frozenset(range(self.vocab_size)) - self._pieces.keys()

    def __reduce__(self) -> tuple[type["FastTokenizer"], tuple[object, ...]]:
        return FastTokenizer, self._state

    @classmethod
    def load(cls, folder: Path | str) -> "FastTokenizer":
        """Load the `tokenizer.json` of a folder.

        Raises:
            TokenizerError: it is missing, damaged or of another kind.
        """
        folder = Path(folder)
        recover_folder(folder)
        path = folder / FAST_FILE
        return cls(read_json(path, TokenizerError, _MEND), str(path), read_facts(folder))

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a control token, whatever the text says."""
        return self._tokenizer.encode(whole_characters(text), add_special_tokens=False).ids

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """Ids of text with control ids between; the texts are encoded as parts of one."""
        return self.encode(
            "".join(part if isinstance(part, str) else self._alias[part] for part in parts)
        )


_ROLES = ("bos", "eos", "pad", "unk")


def _is_blank(name: str) -> bool:
    return not name.replace(SPACE, "").strip()


@contextmanager
def _library_errors(source: str) -> Iterator[None]:
    """Turn what the library raises for a bad file into one error."""
    try:
        yield
    except BaseException as error:  # it raises nothing more precise than Exception, or panics
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        first = " ".join(str(error).split())[:300]
        raise TokenizerError(f"{source} is not a tokenizer ({first}); {_MEND}") from None


def _build(
    content: Mapping[str, Any], named: Mapping[str, int], aliases: Mapping[str, str], source: str
) -> tokenizers.Tokenizer:
    """The library's object, with every token under its id."""
    with _library_errors(source):
        built = tokenizers.Tokenizer.from_str(json.dumps(content))
    for name, index in named.items():
        if built.token_to_id(aliases.get(name, name)) != index:
            raise TokenizerError(
                f"{source}: the token {name!r} cannot have id {index}; {_MEND}, or correct the ids"
            )
    return built
