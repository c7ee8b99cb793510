# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import gzip
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openllm.core.errors import ConfigError
from openllm.data.prepare.filters import QualityConfig, clean, judge
from openllm.data.prepare.ngrams import split_words


@pytest.mark.parametrize(
    ("damaged", "repaired"),
    [
        ("l'Ã©tÃ© Ã  NoÃ«l", "l'été à Noël"),
        ("â€œquotedâ€\x9d â€” itâ€™s", "“quoted” — it’s"),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚, ÐºÐ°Ðº Ð´ÐµÐ»Ð°", "Привет, как дела"),
        ("isn\x92t", "isn’t"),
        ("cafe\u0301", "café"),
        ("a\x00b\x07c\x0bd\x0ce\x7ff\u00adg\ufeffh", "abcdefgh"),
        ("lone \ud800 half", "lone \ufffd half"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("a\u00a0b\u3000c", "a b c"),
        ("a  b \t c   \n   indented   text\t", "a b c\n   indented text"),
        ("\n\n\na\n\n\n\n\nb\n \n\nc\n\n", "a\n\nb\n\nc"),
    ],
)
def test_clean_repairs(damaged, repaired):
    assert clean(damaged) == repaired


@pytest.mark.parametrize(
    "text",
    [
        "He said “it’s fine” — and left…",
        "Où est l’été ? À Noël, ça gêne « déjà ».",
        "全角，标点。「引用」",
        "می‌خواهم",
        "👩‍👩‍👧 naïve",
        "x = a &lt; b",
        "Привет — «мир»",
    ],
)
def test_clean_leaves_good_text_alone(text):
    assert clean(text) == text


@given(st.text(max_size=200))
def test_clean_gives_storable_text(text):
    cleaned = clean(text)
    cleaned.encode("utf-8")
    assert "\n\n\n" not in cleaned and "\r" not in cleaned and cleaned == cleaned.strip()


def reasons(*texts: str, **limits: float) -> list[str]:
    return [reason for reason, _ in judge(texts, split_words(texts), QualityConfig(**limits))]


def test_each_rule_finds_its_case():
    good = "The quick brown fox jumps over the lazy dog near the quiet river bank."
    texts = [
        good,
        "Too short.",
        "a b c d e ---- ==== .... ,,,, !!!! ???? :::: ;;;;",
        "five plain words are here " + "★✦✧" * 5,
        "some words and then " + "ab" * 200,
        "\n".join(["the same line again"] * 9 + ["another line"]),
        "buy it now for less " * 30,
    ]
    assert reasons(*texts) == [
        "",
        "too-few-words",
        "few-letters",
        "symbols",
        "long-word",
        "repeated-lines",
        "repeated-phrases",
    ]


def test_judging_together_is_judging_alone():
    draw = random.Random(1)
    texts = ["".join(draw.choices("ab cd.\n★漢", k=draw.randrange(80))) for _ in range(200)]
    assert reasons(*texts) == [reasons(text)[0] for text in texts]
    assert reasons("") == ["too-few-words"]


def test_details_say_what_and_how_much():
    texts = ["one two"]
    assert judge(texts, split_words(texts), QualityConfig()) == [
        ("too-few-words", "2 words, minimum 5")
    ]


def test_unknown_rule_is_refused():
    with pytest.raises(ConfigError, match="min_wrods"):
        QualityConfig.parse({"min_wrods": 3}, "test")


@pytest.mark.integration
def test_hardly_any_good_document_is_dropped_in_any_language(shared_data):
    with gzip.open(shared_data / "multilingual" / "udhr_all_languages.jsonl.gz", "rt") as handle:
        records = [json.loads(line) for line in handle]
    texts = [clean(record["text"]) for record in records]
    dropped = [r["lang"] for r, why in zip(records, reasons(*texts), strict=True) if why]
    assert len(records) > 300
    assert len(dropped) <= 1, dropped


@pytest.mark.parametrize("name", ["zh_tang_poems", "zh_wikipedia_passages", "zh_ud_sentences"])
def test_chinese_is_not_taken_for_too_short(shared_data, name):
    with gzip.open(shared_data / "multilingual" / f"{name}.jsonl.gz", "rt") as handle:
        texts = [clean(json.loads(line)["text"]) for line in handle][:1500]
    dropped = sum(why != "" for why in reasons(*texts))
    assert dropped <= 0.02 * len(texts)
