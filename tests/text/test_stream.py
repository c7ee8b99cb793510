# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Streamed text equals the whole text, and no part of it ends inside a character."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.text.strategies import TEXTS

from openllm.core.errors import TokenizerError
from openllm.text.stream import StreamDecoder
from openllm.text.tokenizer import Tokenizer


@settings(deadline=None)
@given(ids=st.lists(st.one_of(st.integers(0, 999), st.integers(256, 511))))
def test_any_ids_stream_to_the_whole_text(tokenizer: Tokenizer, ids: list[int]) -> None:
    stream = StreamDecoder(tokenizer)
    parts = [stream.feed(index) for index in ids]
    assert "".join(parts) + stream.finish() == tokenizer.decode(ids)


@settings(deadline=None)
@given(text=TEXTS, step=st.integers(1, 5))
def test_text_streams_in_whole_characters(tokenizer: Tokenizer, text: str, step: int) -> None:
    text = text.replace("\u2581", " ")
    ids = tokenizer.encode(text)
    stream = StreamDecoder(tokenizer)
    shown = ""
    for start in range(0, len(ids), step):
        shown += stream.feed(*ids[start : start + step])
        assert text.startswith(shown)
    assert stream.finish() == ""
    assert shown == text


def test_a_character_waits_for_its_last_byte(tokenizer: Tokenizer) -> None:
    first, second, third = (256 + byte for byte in "€".encode())
    stream = StreamDecoder(tokenizer)
    assert [stream.feed(first), stream.feed(second), stream.feed(third)] == ["", "", "€"]


def test_controls_between_bytes_do_not_break_a_character(tokenizer: Tokenizer) -> None:
    first, second = (256 + byte for byte in "é".encode())
    stream = StreamDecoder(tokenizer)
    assert stream.feed(first) + stream.feed(tokenizer.eos_id) + stream.feed(second) == "é"


def test_finish_shows_the_rest_and_starts_anew(tokenizer: Tokenizer) -> None:
    stream = StreamDecoder(tokenizer)
    assert stream.feed(256 + 0xE2) == ""
    assert stream.finish() == "\ufffd"
    assert stream.feed(256 + ord("a")) == "a"


def test_unknown_ids_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="token 1000"):
        StreamDecoder(tokenizer).feed(1000)
