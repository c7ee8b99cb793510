# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Word-by-word encoding, so that ids of frequent words are looked up instead of recomputed.

If no token of a vocabulary crosses a word boundary, encoding words one by one gives the ids of the
whole text; `word_pattern` tests that for each vocabulary.
"""

import re
from array import array
from collections.abc import Callable, Iterator

from sentencepiece.sentencepiece_model_pb2 import ModelProto

SPACE = "\u2581"
"""SentencePiece's mark for a space inside a piece."""

Piece = ModelProto.SentencePiece
CONTROLS = (Piece.CONTROL, Piece.UNKNOWN)

# Two ways to cut text into words: also around punctuation, or at spaces and newlines only.
_S = rf" {SPACE}"
_PUNCTUATION = (
    r"!-/:-@\[-`{-~\u00a1-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u2010-\u2580\u2582-\u2bff"
    r"\u3000-\u303f\uff01-\uff0f\uff1a-\uff20\U0001f000-\U0001faff"
)
_CUTS = (
    re.compile(rf"\n+|[{_S}]*[^{_S}\n{_PUNCTUATION}]+|[{_S}]*[{_PUNCTUATION}]+|[{_S}]+"),
    re.compile(rf"\n+|[{_S}]*[^{_S}\n]+|[{_S}]+"),
)
_BORDER = re.compile(rf"(?<![{_S}]) |(?<!\n)\n")
"""Where both patterns cut."""
_PART_CHARS = 20_000
_CACHE_SIZE = 100_000  # words per generation, about 15 MB; there are two
_CACHE_MAX_CHARS = 40


class WordEncoder:
    """Encodes text to packed ids by looking up words.

    Args:
        encode: gives SentencePiece's ids of a string.
        pattern: matches words that can be encoded one by one.
        code: `array` type code of an id.
    """

    def __init__(
        self, encode: Callable[[str], list[int]], pattern: re.Pattern[str], code: str
    ) -> None:
        self._find = pattern.findall
        self._cache = _Cache(encode, code)

    def encode(self, text: str) -> bytes:
        """Packed ids of a text of any length."""
        lookup = self._cache.__getitem__
        return b"".join([b"".join(map(lookup, self._find(part))) for part in _parts(text)])


class _Cache(dict[str, bytes]):
    """Word -> packed ids of recent words: one generation is filled, an older one only looked up."""

    def __init__(self, encode: Callable[[str], list[int]], code: str) -> None:
        super().__init__()
        self._encode, self._code = encode, code
        self._older: dict[str, bytes] = {}

    def __missing__(self, word: str) -> bytes:
        ids = self._older.get(word)
        if ids is None:
            ids = array(self._code, self._encode(word)).tobytes()
        if len(word) <= _CACHE_MAX_CHARS:
            if len(self) >= _CACHE_SIZE:
                self._older = dict(self)
                self.clear()
            self[word] = ids
        return ids


def code_of(vocab_size: int) -> str:
    """The `array` type code of the smallest type that holds every id."""
    return "H" if vocab_size <= 2**16 else "I"


def _parts(text: str) -> Iterator[str]:
    """Split a long text, so that its words are not all in memory at once."""
    start = 0
    while len(text) - start > _PART_CHARS:
        border = _BORDER.search(text, start + _PART_CHARS)
        if border is None:
            break
        yield text[start : border.start()]
        start = border.start()
    yield text[start:] if start else text


def word_pattern(proto: ModelProto) -> re.Pattern[str] | None:
    """The finest split into words that leaves the ids of every text unchanged, if there is one."""
    normalizer = proto.normalizer_spec
    plain = (
        normalizer.name == "identity"
        and not normalizer.add_dummy_prefix
        and not normalizer.remove_extra_whitespaces
        and all(piece.type in (Piece.NORMAL, Piece.BYTE, *CONTROLS) for piece in proto.pieces)
    )
    if not plain:
        return None
    normal = [piece.piece for piece in proto.pieces if piece.type == Piece.NORMAL]
    return next((cut for cut in _CUTS if all(map(cut.fullmatch, normal))), None)
