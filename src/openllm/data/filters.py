# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Repair of a text, and rules that say why a text is not worth learning from.

The rules look at characters, lines and word n-grams only and hold for every script; they follow
those of Gopher (arXiv:2112.11446, table A1) where these do not depend on English.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
from ftfy import fix_encoding
from pydantic import Field

from openllm.core.config import Config
from openllm.data.ngrams import Words, ngrams

# One repair for each family of damage; see `clean`.
_ASCII_CONTROLS = bytes([*range(9), 11, 12, *range(14, 32), 127])
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\ufeff\ufffe\uffff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_LINE_ENDS = re.compile("\r\n?|\x85|\u2028|\u2029")
_SPACES = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_GAP = re.compile("[ \t]{2,}")
_EMPTY_LINES = re.compile("\n{3,}")
# UTF-8 read in a single-byte encoding leaves at least two characters of these blocks side by side,
# or a capital A with a mark before a space; only such lines are shown to ftfy, which is slow.
_SUSPECT = re.compile(
    "[\x80-\u045f\u2010-\u2265\u2500-\u25ff\uf8ff\ufb01\ufb02\ufffd]{2}|[\xc2\xc3][ \xa0]"
)


def clean(text: str) -> str:
    """Repair Unicode, remove control characters and settle white space.

    Wrongly decoded UTF-8 is decoded again (ftfy), lone surrogates become U+FFFD, characters are
    composed (NFC). Line ends become \\n; runs of spaces inside a line become one, while indentation
    stays; at most one empty line stands between two lines.
    """
    if text.isascii():
        text = text.encode("ascii").translate(None, _ASCII_CONTROLS).decode("ascii")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    else:
        text = _repair(text)
    lines = [_settle(line.rstrip()) for line in text.split("\n")]
    return _EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip("\n")


def _settle(line: str) -> str:
    """One space for each run of spaces and tabs behind the first word; indentation stays."""
    if "  " not in line and "\t" not in line:
        return line
    body = line.lstrip()
    return line[: len(line) - len(body)] + _GAP.sub(" ", body)


def _repair(text: str) -> str:
    """The part of `clean` that only text beyond ASCII needs."""
    text = _LINE_ENDS.sub("\n", text)
    text = _SURROGATES.sub("\ufffd", text)
    if _SUSPECT.search(text):
        lines = text.split("\n")
        text = "\n".join([fix_encoding(line) if _SUSPECT.search(line) else line for line in lines])
    text = _SPACES.sub(" ", _CONTROLS.sub("", text))
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


class QualityConfig(Config):
    """Limits of the quality rules; a document beyond one of them is dropped.

    Attributes:
        min_words: fewest words; see `ngrams` for what a word is in scripts without spaces.
        min_letters: least share of letters, marks and digits among characters that are not space.
        max_symbols: largest share of symbols and of replacement characters among these.
        max_word: longest word of a script with spaces, in characters.
        max_repeated_lines: largest share of characters in lines that stood before in the document.
        max_repeated_phrases: largest share of word 5-grams that stood before in the document.
    """

    min_words: int = Field(5, ge=1)
    min_letters: float = Field(0.5, ge=0, le=1)
    max_symbols: float = Field(0.2, ge=0, le=1)
    max_word: int = Field(250, ge=1)
    max_repeated_lines: float = Field(0.5, ge=0, le=1)
    max_repeated_phrases: float = Field(0.6, ge=0, le=1)


_LETTER, _SPACE, _SYMBOL = 1, 2, 3


@cache
def _classes() -> np.ndarray:
    """Letter, space, symbol or other for each code point, uint8 [0x110000]."""
    table = np.zeros(0x110000, dtype=np.uint8)
    names = {"L": _LETTER, "M": _LETTER, "N": _LETTER, "Z": _SPACE, "S": _SYMBOL}
    for code in [*range(0x33480), *range(0xE0000, 0xE0200)]:
        category = unicodedata.category(chr(code))
        table[code] = _SYMBOL if category in ("Co", "Cn") else names.get(category[0], 0)
    table[[9, 10, 13]] = _SPACE
    table[0xE000:0xF900] = _SYMBOL
    table[0xF0000:] = _SYMBOL
    return table


def judge(texts: Sequence[str], words: Words, config: QualityConfig) -> list[tuple[str, str]]:
    """Why each text is to be dropped: (reason, detail), or ("", "") where it is kept.

    Args:
        texts: cleaned texts.
        words: `split_words(texts)`.
        config: the limits.
    """
    letters, symbols = _shares(texts)
    longest = _longest_words(words)
    phrases = _repeated_phrases(words)
    verdicts = []
    for i, (text, count) in enumerate(zip(texts, words.counts().tolist(), strict=True)):
        if count < config.min_words:
            verdict = ("too-few-words", f"{count} words, at least {config.min_words}")
        elif letters[i] < config.min_letters:
            verdict = _beyond("few-letters", letters[i], "letters and digits", config.min_letters)
        elif symbols[i] > config.max_symbols:
            verdict = _beyond("symbols", symbols[i], "symbols", config.max_symbols)
        elif longest[i] > config.max_word:
            verdict = ("long-word", f"{longest[i]} characters, at most {config.max_word}")
        elif (share := _repeated_lines(text)) > config.max_repeated_lines:
            verdict = _beyond("repeated-lines", share, "repeated lines", config.max_repeated_lines)
        elif phrases[i] > config.max_repeated_phrases:
            verdict = _beyond(
                "repeated-phrases", phrases[i], "repeated 5-grams", config.max_repeated_phrases
            )
        else:
            verdict = ("", "")
        verdicts.append(verdict)
    return verdicts


def _beyond(reason: str, share: float, what: str, limit: float) -> tuple[str, str]:
    return reason, f"{share:.0%} {what}, limit {limit:.0%}"


def _shares(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Share of letters and of symbols among the characters of each text that are not space."""
    joined = "\n".join(texts)
    classes = _classes()[np.frombuffer(joined.encode("utf-32-le"), dtype=np.uint32)]
    bounds = np.cumsum([0, *(len(text) + 1 for text in texts)])

    def count(wanted: np.ndarray) -> np.ndarray:
        return np.diff(np.concatenate(([0], np.cumsum(wanted)))[np.minimum(bounds, len(classes))])

    visible = np.maximum(1, count(classes != _SPACE))
    return count(classes == _LETTER) / visible, count(classes == _SYMBOL) / visible


def _longest_words(words: Words) -> np.ndarray:
    """Characters of the longest word of each text, int64 [D]."""
    longest = np.zeros(len(words.bounds) - 1, dtype=np.int64)
    sizes = np.diff(words.bounds)
    filled = sizes > 0
    if filled.any():
        lengths = words.ends - words.starts
        longest[filled] = np.maximum.reduceat(lengths, words.bounds[:-1][filled])
    return longest


def _repeated_lines(text: str) -> float:
    """Share of the characters that lie in lines which stood before."""
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    if len(lines) < 4:
        return 0.0
    return 1 - sum(map(len, set(lines))) / sum(map(len, lines))


def _repeated_phrases(words: Words) -> np.ndarray:
    """Share of the 5-grams of each text that stood before in it, float [D]."""
    grams = ngrams(words, 5)
    counts = np.diff(grams.bounds)
    owner = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
    # The owner replaces the top bits, so that one sort serves all texts of the batch.
    keys = np.sort((owner << np.uint64(44)) | (grams.hashes >> np.uint64(20)))
    first = np.ones(len(keys), dtype=bool)
    first[1:] = keys[1:] != keys[:-1]
    distinct = np.bincount(
        (keys[first] >> np.uint64(44)).astype(np.int64), minlength=len(counts)
    )
    return 1 - distinct / np.maximum(1, counts) * (counts > 0) - (counts == 0)
