# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Text repair, and rules that drop texts not worth training on.

The rules use only characters, lines and word n-grams and apply to every script; they follow those
of Gopher (arXiv:2112.11446, table A1) where these do not depend on English.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
from ftfy import fix_encoding
from pydantic import Field

from openllm.core.config import Config
from openllm.data.prepare.ngrams import Words, distinct, ngrams


def _characters(*ranges: tuple[int, int]) -> frozenset[str]:
    return frozenset(chr(code) for first, last in ranges for code in range(first, last + 1))


_CONTROLS = _characters(
    (0x00, 0x08), (0x0B, 0x0C), (0x0E, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0xFEFF, 0xFEFF),
    (0xFFFE, 0xFFFF),
)  # fmt: skip
_SURROGATES = _characters((0xD800, 0xDFFF))
_LINE_ENDS = frozenset("\x85\u2028\u2029")
_SPACES = _characters(
    (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x202F, 0x202F), (0x205F, 0x205F),
    (0x3000, 0x3000),
)  # fmt: skip

# Blanks printable ASCII, so that a fast split leaves the rest; split would also drop \x0b and \x0c.
_BLANK_ASCII = bytes(
    32 if 32 <= byte < 127 or byte in b"\t\n\r" else 1 if byte in b"\x0b\x0c" else byte
    for byte in range(256)
)
_LINE_END = re.compile("[\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_GAP = re.compile("[ \t]{2,}")
_EMPTY_LINES = re.compile("\n{3,}")
# ftfy is slow, so it sees only lines in which a character that may be the first byte of a UTF-8
# sequence, decoded with some single-byte encoding, precedes one that may be the second byte.
_SUSPECT = re.compile(
    "[\x80-\x9f]|[\xc2\xc3][ \xa0]"
    "|[\xc2-\u0390\u0400-\u040f\u0450-\u045f][^\x00-\x7f\xc0-\xc5\xc7-\xd7\xd9-\xe5\xe7-\xf7\xf9-\xff"
    "\u0300-\u036f\u1e00-\u1fff]"
    "|[\u0391-\u03ff][^\x00-\x7f\u0370-\u03ff\u1f00-\u1fff]"  # Greek encodings
    "|[\u0410-\u044f][^\x00-\x7f\u0410-\u044f]"  # Cyrillic encodings
    "|[\xac\xb7\u2013\u2014\u201a\u201e\u2021\u2030\u2044\u20ac\u2202-\u2265\ufb01\ufb02]"
    "[^\x00-\x7f\xa0\xa1\xab\xbb\xbf\u2010-\u201f\u2026\u2039\u203a\u2e80-\ud7ff\uff00-\uffef]"
    "|[\u0192\u2500-\u257f][^\x00-\x7f]"
)


def clean(text: str) -> str:
    """Repair Unicode, remove control characters and normalise white space.

    Wrongly decoded UTF-8 is decoded again (ftfy), lone surrogates become U+FFFD, characters are
    composed (NFC). Line ends become \\n; runs of spaces in a line become one, but indentation is
    kept; at most one empty line remains between two lines.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    runs = text.encode("utf-8", "surrogatepass").translate(_BLANK_ASCII).split()
    if runs:
        text = _repair(text, b" ".join(runs).decode("utf-8", "surrogatepass"))
    text = "\n".join([_settle(line.rstrip()) for line in text.split("\n")])
    return (_EMPTY_LINES.sub("\n\n", text) if "\n\n\n" in text else text).strip()


def _repair(text: str, beyond: str) -> str:
    """Repair a text; `beyond` is its part beyond printable ASCII, so most steps are skipped."""
    present = set(beyond)
    if suspects := set(_SUSPECT.findall(beyond + " ")):
        lines = text.split("\n")
        text = "\n".join([_decode_again(line, suspects) for line in lines])
        present = set(text)
    if present & _LINE_ENDS:
        text = _LINE_END.sub("\n", text)
    if present & _SURROGATES:
        text = _SURROGATE.sub("\ufffd", text)
    if "\x01" in present:  # may be itself, \x0b or \x0c, see _BLANK_ASCII
        present |= {"\x0b", "\x0c"}
    for unwanted, replacement in ((_CONTROLS, ""), (_SPACES, " ")):
        for character in present & unwanted:
            text = text.replace(character, replacement)
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def _decode_again(line: str, suspects: set[str]) -> str:
    return fix_encoding(line) if any(pair in line for pair in suspects) else line


def _settle(line: str) -> str:
    """Collapse runs of spaces and tabs after the first word; indentation is kept."""
    if "  " not in line and "\t" not in line:
        return line
    body = line.lstrip()
    return line[: len(line) - len(body)] + _GAP.sub(" ", body)


class QualityConfig(Config):
    """Limits of the quality rules; a document beyond any of them is dropped.

    Attributes:
        min_words: minimum number of words; see `ngrams` for words in scripts without spaces.
        min_letters: minimum share of letters, marks and digits among non-space characters.
        max_symbols: maximum share of symbols and replacement characters among these.
        max_word: maximum word length in scripts with spaces, in characters.
        max_repeated_lines: maximum share of characters in lines that repeat an earlier line.
        max_repeated_phrases: maximum share of word 5-grams that repeat an earlier one.
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
    """Why each text should be dropped: (reason, detail), or ("", "") if it is kept.

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
            verdict = ("too-few-words", f"{count} words, minimum {config.min_words}")
        elif letters[i] < config.min_letters:
            verdict = _beyond("few-letters", letters[i], "letters and digits", config.min_letters)
        elif symbols[i] > config.max_symbols:
            verdict = _beyond("symbols", symbols[i], "symbols", config.max_symbols)
        elif longest[i] > config.max_word:
            verdict = ("long-word", f"{longest[i]} characters, maximum {config.max_word}")
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
    """Share of letters and of symbols among the non-space characters of each text."""
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
    """Share of characters in lines that repeat an earlier line."""
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    if len(lines) < 4:
        return 0.0
    return 1 - sum(map(len, set(lines))) / sum(map(len, lines))


def _repeated_phrases(words: Words) -> np.ndarray:
    """Share of each text's 5-grams that repeat an earlier one, float [D]."""
    grams = ngrams(words, 5)
    counts = np.diff(grams.bounds)
    return 1 - np.diff(distinct(grams).bounds) / np.maximum(1, counts) - (counts == 0)
