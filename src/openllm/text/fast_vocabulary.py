# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What is in a `tokenizer.json`: its pieces, added tokens, and how pieces spell bytes."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from openllm.core.errors import TokenizerError
from openllm.text.hf_folder import TokenizerFacts
from openllm.text.words import SPACE

_MEND = "copy the model folder again"
_MOST_IDS = 10_000_000
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def check_content(content: Mapping[str, Any], source: str) -> None:
    """Check the parts that this package reads.

    Raises:
        TokenizerError: one is missing or has the wrong type.
    """
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        good = all(type(index) is int and 0 <= index < _MOST_IDS for index in vocabulary.values())
        good = good and len({*vocabulary.values()}) == len(vocabulary)
    else:
        good = isinstance(vocabulary, list) and all(
            isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)
            for entry in vocabulary
        )
    if not vocabulary or not good:
        raise TokenizerError(f"{source} has no vocabulary of pieces and ids; {_MEND}")
    merges = model.get("merges", [])
    if not isinstance(merges, list) or not all(map(_is_merge, merges)):
        raise TokenizerError(f"{source} has merges that are not pairs of pieces; {_MEND}")
    if isinstance(vocabulary, list) and unknown_piece(content["model"]) is None:
        raise TokenizerError(f"{source} has no unknown piece ('unk_id'), as unigram needs; {_MEND}")
    added = content.get("added_tokens", [])
    good = isinstance(added, list) and all(
        isinstance(token, dict)
        and isinstance(token.get("content"), str)
        and type(token.get("id")) is int
        and 0 <= token["id"] < _MOST_IDS
        for token in added
    )
    if not good:
        raise TokenizerError(f"{source} has an added token without a content or an id; {_MEND}")


def add_tokens(content: Mapping[str, Any], facts: TokenizerFacts, source: str) -> dict[str, Any]:
    """The contents with the tokens that other files add, in order of their ids.

    Raises:
        TokenizerError: an id is taken by another token, or is beyond all others.
    """
    tokens = {token["content"]: token for token in content.get("added_tokens", [])}
    for token in facts.added:
        tokens.setdefault(token["content"], dict(token))
    added = sorted(tokens.values(), key=lambda token: token["id"])
    found = {**content, "added_tokens": added}
    size = len(content["model"]["vocab"])
    names: dict[int, str] = {}
    for name, index in (*_vocabulary(content["model"]).items(), *_ids(added)):
        if names.setdefault(index, name) != name or index > size + 100_000:
            raise TokenizerError(
                f"{source}: the token {name!r} cannot have id {index}, which is "
                f"{'that of ' + repr(names[index]) if names[index] != name else 'too high'}; "
                f"{_MEND}, or correct the added tokens"
            )
    return found


def fingerprint_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of the contents, whatever the order of keys and the way merges are written."""
    model = dict(content["model"])
    if "merges" in model:
        model["merges"] = [_pair(merge) for merge in model["merges"]]
    text = json.dumps({**content, "model": model}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def pieces_of(content: Mapping[str, Any]) -> dict[str, int]:
    """Name -> id of all tokens."""
    return {**_vocabulary(content["model"]), **dict(_ids(content["added_tokens"]))}


def unknown_piece(model: Mapping[str, Any]) -> str | None:
    """The piece for what the vocabulary lacks."""
    index = model.get("unk_id")
    if isinstance(model["vocab"], list):
        known = type(index) is int and 0 <= index < len(model["vocab"])
        return model["vocab"][index][0] if known else None
    return model.get("unk_token")


def _vocabulary(model: Mapping[str, Any]) -> dict[str, int]:
    if isinstance(model["vocab"], dict):
        return model["vocab"]
    return {piece: index for index, (piece, _) in enumerate(model["vocab"])}


def _ids(added: list[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    return ((token["content"], token["id"]) for token in added)


def rename_pieces(
    content: Mapping[str, Any], aliases: Mapping[str, str], secret: str
) -> dict[str, Any]:
    """The contents with other names for some tokens, all of which become added tokens.

    Ids that no token has between those of added tokens are given names too, since the library
    numbers added tokens without gaps.
    """
    model = dict(content["model"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {aliases.get(name, name): i for name, i in model["vocab"].items()}
    else:
        model["vocab"] = [[aliases.get(name, name), score] for name, score in model["vocab"]]
    if model.get("unk_token") in aliases:
        model["unk_token"] = aliases[model["unk_token"]]
    if "merges" in model and aliases.keys() & _vocabulary(content["model"]).keys():
        model["merges"] = [
            merge
            for merge in model["merges"]
            if aliases.keys().isdisjoint((*_pair(merge), "".join(_pair(merge))))
        ]
    ids = pieces_of(content)
    flags = {token["content"]: token for token in content["added_tokens"]}
    added = [token for token in content["added_tokens"] if token["content"] not in aliases]
    for name, alias in aliases.items():
        token = {"lstrip": False, "rstrip": False, **flags.get(name, {})}
        exact = {"single_word": False, "normalized": False, "special": True}
        added.append({**token, **exact, "id": ids[name], "content": alias})
    taken = set(ids.values())
    last = max((token["id"] for token in added), default=0)
    for index in range(len(model["vocab"]), last):
        if index not in taken:
            gap = {"id": index, "content": f"\uf8f0{secret}-{index}\uf8f1", "special": True}
            added.append({**dict.fromkeys(_FLAGS, False), **gap})
    added.sort(key=lambda token: token["id"])
    return {**content, "model": model, "added_tokens": added}


_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


def _is_merge(merge: object) -> bool:
    pair = merge.split(" ") if isinstance(merge, str) else merge
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(p, str) for p in pair)


def _pair(merge: str | list[str]) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


@dataclass(frozen=True)
class Decoding:
    """How the pieces of a vocabulary spell bytes.

    Attributes:
        byte_level: each character of a piece is one byte, by GPT-2's table.
        byte_pieces: a piece such as `<0x0A>` is one byte.
        space: the character for a space; not with `byte_level`.
        adds_space: a space is put before a text, and removed again.
    """

    byte_level: bool
    byte_pieces: bool = False
    space: str = SPACE
    adds_space: bool = False

    def is_byte(self, piece: str) -> bool:
        """Whether a piece is one byte of a character that has no piece of its own."""
        if self.byte_level:
            return len(piece) == 1 and _BYTES.get(piece, 0) >= 0x80
        return self.byte_pieces and _BYTE.fullmatch(piece) is not None

    def surface(self, piece: str) -> bytes:
        """The bytes of a piece."""
        if self.byte_level:
            if all(character in _BYTES for character in piece):
                return bytes([_BYTES[character] for character in piece])
        elif self.byte_pieces and (found := _BYTE.fullmatch(piece)):
            return bytes([int(found[1], 16)])
        else:
            piece = piece.replace(self.space, " ")
        return piece.encode("utf-8", "replace")


def decoding_of(content: Mapping[str, Any], source: str) -> Decoding:
    """Read it from the decoder.

    Raises:
        TokenizerError: the decoder does something else.
    """
    space, adds_space = SPACE, False
    kinds: set[str] = set()
    for step in _steps(content.get("decoder")):
        kind = str(step.get("type"))
        kinds.add(kind)
        if kind == "Metaspace":
            space = step.get("replacement", SPACE)
            scheme = step.get("prepend_scheme", "always")
            adds_space = scheme != "never" and step.get("add_prefix_space") is not False
        elif kind == "Replace" and step.get("content") == " ":
            pattern = step.get("pattern")
            space = pattern.get("String") if isinstance(pattern, dict) else None
        elif kind == "Strip" and (step.get("content"), step.get("stop")) == (" ", 0):
            adds_space = step.get("start") == 1
        elif kind not in ("ByteLevel", "ByteFallback", "Fuse"):
            raise _unknown_decoder(source, kind)
        if not isinstance(space, str) or not space:
            raise _unknown_decoder(source, step)
    if not kinds & {"ByteLevel", "Metaspace", "Replace"}:
        raise _unknown_decoder(source, content.get("decoder"))
    return Decoding("ByteLevel" in kinds, "ByteFallback" in kinds, space, adds_space)


def _steps(decoder: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(decoder, dict):
        steps = decoder.get("decoders") if decoder.get("type") == "Sequence" else None
        if isinstance(steps, list):
            for step in steps:
                yield from _steps(step)
        else:
            yield decoder


def _unknown_decoder(source: str, kind: object) -> TokenizerError:
    return TokenizerError(
        f"{source} has a decoder that OpenLLM cannot undo byte by byte ({str(kind)[:80]}); "
        "byte-level BPE, and BPE or unigram with U+2581 for spaces, can be used"
    )


def _byte_table() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable ones as themselves, the others from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTES = _byte_table()
