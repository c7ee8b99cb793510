# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The small JSON files beside a tokenizer that name its special tokens, as Hugging Face has them.

tokenizer_config.json       special tokens, whether bos is added, a chat template
special_tokens_map.json     special tokens, in older folders
added_tokens.json           tokens outside the vocabulary file, in older folders
generation_config.json      ids that end a generation
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openllm.core.errors import TokenizerError
from openllm.core.files import read_json

ROLES = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_MEND = "copy the model folder again"


@dataclass(frozen=True)
class TokenizerFacts:
    """What these files say.

    Attributes:
        special: role, such as "bos_token" -> spelling.
        more_special: spellings of special tokens without a role.
        add_bos: whether a document of SentencePiece begins with bos; None: they do not say.
        end_ids: ids that end a generation, beside that of eos.
        added: tokens to add, in the form of `tokenizer.json`.
    """

    special: Mapping[str, str] = field(default_factory=dict)
    more_special: tuple[str, ...] = ()
    add_bos: bool | None = None
    end_ids: frozenset[int] = frozenset()
    added: tuple[Mapping[str, Any], ...] = ()


def read_facts(folder: Path) -> TokenizerFacts:
    """Read the files of a folder; all of them may be missing.

    Raises:
        TokenizerError: one is not JSON, or has a value of the wrong type.
    """
    config = read_object(folder / "tokenizer_config.json")
    named = read_object(folder / "special_tokens_map.json")
    path = folder / "tokenizer_config.json"
    special: dict[str, str] = {}
    more: list[str] = []
    for role in ROLES:
        value = config.get(role, named.get(role))
        if value is not None:
            special[role] = _spelling(value, role, path)
    for key in _LISTS:
        values = config.get(key, named.get(key)) or []
        if isinstance(values, dict):
            values = list(values.values())
        if not isinstance(values, list):
            raise _wrong(path, key, "a list of tokens")
        more += [_spelling(value, key, path) for value in values]
    add_bos = config.get("add_bos_token")
    if not isinstance(add_bos, bool | None):
        raise _wrong(path, "add_bos_token", "true or false")
    added = tuple(_added(folder, config))
    return TokenizerFacts(special, tuple(more), add_bos, _end_ids(folder), added)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty if there is no such file."""
    return read_json(path, TokenizerError, _MEND) if path.exists() else {}


def _added(folder: Path, config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Added tokens in the form of `tokenizer.json`, those of `tokenizer_config.json` first."""
    path = folder / "tokenizer_config.json"
    decoder = config.get("added_tokens_decoder", {})
    if not isinstance(decoder, dict):
        raise _wrong(path, "added_tokens_decoder", "an object")
    for index, token in decoder.items():
        if not index.isdecimal() or not isinstance(token, dict):
            raise _wrong(path, "added_tokens_decoder", "an object of ids and tokens")
        flags = {name: bool(token.get(name)) for name in _FLAGS}
        spelling = _spelling(token, "added_tokens_decoder", path)
        yield {"id": int(index), "content": spelling, **flags}
    path = folder / "added_tokens.json"
    for spelling, index in read_object(path).items():
        if not isinstance(index, int) or index < 0:
            raise _wrong(path, spelling, "an id")
        yield {"id": index, "content": spelling, **dict.fromkeys(_FLAGS, False)}


def _end_ids(folder: Path) -> frozenset[int]:
    """`eos_token_id` of the generation settings, or without them of the model's."""
    path = folder / "generation_config.json"
    path = path if path.exists() else folder / "config.json"
    found = read_object(path).get("eos_token_id")
    ids: list[Any] = found if isinstance(found, list) else [found]
    ids = [] if found is None else ids
    if not all(type(index) is int and index >= 0 for index in ids):
        raise _wrong(path, "eos_token_id", "an id or a list of ids")
    return frozenset(ids)


def _spelling(value: object, key: str, path: Path) -> str:
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str) or not content:
        raise _wrong(path, key, "a token: a text, or an object with 'content'")
    return content


def _wrong(path: Path, key: str, wanted: str) -> TokenizerError:
    return TokenizerError(f"{path}: '{key}' must be {wanted}; {_MEND}")
