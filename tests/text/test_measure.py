# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Bytes per token and fertility, against counts made by hand."""

from openllm.text.measure import Fit, fit_by_group, rare_share
from openllm.text.tokenizer import Tokenizer


def test_a_case_by_hand() -> None:
    fit = Fit()
    fit.add("été is summer", [600, 601, 256, 700])
    fit.add("in", [600])
    assert (fit.documents, fit.bytes, fit.characters, fit.words, fit.tokens) == (2, 17, 15, 4, 5)
    assert fit.bytes_per_token == 17 / 5
    assert fit.tokens_per_word == 5 / 4
    assert fit.tokens_per_character == 5 / 15
    assert fit.byte_share == 1 / 5


def test_scripts_without_spaces_have_no_words() -> None:
    for text in ("今天天气很好 我们去公园。", "ありがとう 世界", "สวัสดีชาวโลก", "မင်္ဂလာပါ"):
        fit = Fit()
        fit.add(text, [600] * 4)
        assert fit.tokens_per_word is None, text
        assert fit.tokens_per_character == 4 / len(text)
    for text in ("Привет мир", "안녕 세상", "नमस्ते दुनिया", "hello 世界 and more", "2024"):
        fit = Fit()
        fit.add(text, [600])
        assert (fit.tokens_per_word is None) == (text == "2024"), text


def test_nothing_is_divided_by_zero() -> None:
    facts = Fit().facts()
    assert facts["bytes_per_token"] == facts["tokens_per_character"] == 0
    assert facts["tokens_per_word"] is None


def test_groups(tokenizer: Tokenizer) -> None:
    groups = fit_by_group(tokenizer, [("en", "the fox"), ("fr", "été"), ("en", "the bridge")])
    assert {name: fit.documents for name, fit in groups.items()} == {"en": 2, "fr": 1}
    assert groups["en"].tokens == sum(map(len, tokenizer.encode_batch(["the fox", "the bridge"])))


def test_rare_pieces(tokenizer: Tokenizer) -> None:
    pieces = tokenizer.vocab_size - 512
    used = {index for index in tokenizer.encode("the old fox") if index >= 512}
    assert rare_share(tokenizer, ["the old fox"], 1) == (pieces - len(used)) / pieces
    assert rare_share(tokenizer, ["the old fox"], 2) == 1
    assert rare_share(tokenizer, ["the old fox"] * 2, 2) == (pieces - len(used)) / pieces
