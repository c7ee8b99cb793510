# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A continuation ends where it should, and streamed text joins to the whole text."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openllm.engine.output import Output
from openllm.engine.request import SamplingParams, TokenLogprob
from openllm.text.byte_tokenizer import ByteTokenizer

END = 0
TOKENIZER = ByteTokenizer()


class WordTokenizer(ByteTokenizer):
    """Bytes, and a few tokens of several."""

    WORDS = ("ab", "abc", "cab", "bca", "é☕", "xyz")

    def __init__(self) -> None:
        super().__init__()
        self.vocab_size = 256 + len(self.WORDS)
        self._bytes = {**self._bytes, **{256 + i: w.encode() for i, w in enumerate(self.WORDS)}}


def output(limit: int = 100, **params: Any) -> Output:
    return Output(TOKENIZER, SamplingParams(**params), {END}, limit)


def feed(out: Output, ids: bytes | list[int]) -> list[str]:
    """Feeds until it ends; returns what each token brought."""
    pieces = []
    for token in ids:
        if out.finish_reason is not None:
            break
        out.take(token)
        pieces.append(out.news("r").text)
    return pieces


def test_length() -> None:
    out = output(max_new_tokens=3)
    assert feed(out, b"abcd") == ["a", "b", "c"]
    assert (out.text, out.finish_reason, out.tokens) == ("abc", "length", list(b"abc"))


def test_limit_below_max_new_tokens() -> None:
    out = output(2, max_new_tokens=3)
    feed(out, b"abcd")
    assert (out.text, out.finish_reason) == ("ab", "length")


def test_end_token() -> None:
    out = output()
    feed(out, b"ab\0c")
    assert (out.text, out.finish_reason, out.tokens) == ("ab", "stop", [97, 98])


def test_stop_id() -> None:
    out = output(stop_ids=(ord("c"),))
    feed(out, b"abcd")
    assert (out.text, out.finish_reason, out.tokens) == ("ab", "stop", [97, 98])


def test_ignore_eos() -> None:
    out = output(4, ignore_eos=True, stop_ids=(ord("x"),))
    assert END not in out.ends
    feed(out, b"a\0bc")
    assert (out.tokens, out.finish_reason) == (list(b"a\0bc"), "length")
    out = output(4, ignore_eos=True, stop_ids=(ord("x"),))
    feed(out, b"a\0x")
    assert out.finish_reason == "stop"


def test_min_new_tokens() -> None:
    """Neither an end token nor a stop string ends it before."""
    out = output(min_new_tokens=2)
    feed(out, b"\0ab\0c")
    assert (out.tokens, out.finish_reason) == (list(b"\0ab"), "stop")
    out = output(min_new_tokens=4, stop=("b",))
    pieces = feed(out, b"abcdebf")
    assert ("".join(pieces), out.text, out.finish_reason) == ("abcde", "abcde", "stop")


def test_stop_string_across_tokens() -> None:
    out = output(stop=("cde",))
    assert feed(out, b"abcdef") == ["a", "b", "", "", ""]
    assert (out.text, out.finish_reason) == ("ab", "stop")
    assert out.tokens == list(b"abcde")


def test_held_back_text_is_released() -> None:
    out = output(stop=("cde",))
    assert feed(out, b"abcdcdx") == ["a", "b", "", "", "cd", "", "cdx"]


def test_held_back_text_at_the_end() -> None:
    out = output(4, stop=("cde",))
    assert feed(out, b"abcd") == ["a", "b", "", "cd"]
    assert (out.text, out.finish_reason) == ("abcd", "length")
    out = output(stop=("cde",))
    assert feed(out, b"bcd\0") == ["b", "", "", "cd"]


def test_earliest_of_several_stops() -> None:
    tokenizer = WordTokenizer()
    out = Output(tokenizer, SamplingParams(stop=("c", "bc", "zz")), {END}, 9)
    out.take(257)  # abc
    assert (out.text, out.finish_reason) == ("a", "stop")


def test_stop_inside_characters() -> None:
    """A stop string of bytes that come one by one; a character is held back until its last."""
    out = output(stop=("☕!",))
    assert feed(out, "a☕☕!x".encode()) == ["a", "", "", "", "", "", "☕", ""]
    assert (out.text, out.finish_reason) == ("a☕", "stop")


def test_half_a_character_at_the_end() -> None:
    out = output(3)
    assert feed(out, "ab☕".encode()) == ["a", "b", "�"]
    assert (out.text, out.finish_reason) == ("ab�", "length")


def test_end_from_outside() -> None:
    out = output(stop=("bcd",))
    feed(out, b"abc")
    out.end("abort")
    update = out.news("r", 2, cached_tokens=5)
    assert (update.text, update.finish_reason, update.index) == ("bc", "abort", 2)
    assert (update.id, update.cached_tokens, list(update.token_ids)) == ("r", 5, [])


def test_logprobs() -> None:
    out = output(logprobs=1)
    for token, value in zip(b"ab\0", (-1.0, -2.0, -6.0), strict=True):
        out.take(token, TokenLogprob(token, value, {token: value}))
    update = out.news("r")
    assert [one.logprob for one in update.logprobs or ()] == [-1.0, -2.0]
    assert out.mean_logprob == -3.0
    assert out.news("r").logprobs == []


def test_logprobs_only_for_best_of() -> None:
    out = output()
    out.take(97, TokenLogprob(97, -1.5))
    assert out.news("r").logprobs is None
    assert out.mean_logprob == -1.5


def test_must_not_go_on_after_the_end() -> None:
    out = output(1)
    out.take(97)
    with pytest.raises(AssertionError):
        out.take(97)


def reference(pieces: list[bytes], stops: list[str], least: int, limit: int) -> str:
    """The text by searching all of it after each token."""
    whole = b""
    for count, piece in enumerate(pieces[:limit], 1):
        before = len(whole.decode("utf-8", "ignore"))
        whole += piece
        text = whole.decode("utf-8", "ignore")
        if count >= least:
            starts = [
                at
                for stop in stops
                for at in range(len(text))
                if text.startswith(stop, at) and at + len(stop) > before
            ]
            if starts:
                return text[: min(starts)]
    return text


@given(
    st.lists(st.sampled_from([97, 98, 99, 120, 256, 257, 258, 259, 260, 261]), min_size=1),
    st.lists(st.text("abcxyzé☕", min_size=1, max_size=5), max_size=4),
    st.integers(0, 6),
    st.integers(1, 4),
)
def test_against_a_search_of_the_whole_text(
    ids: list[int], stops: list[str], least: int, every: int
) -> None:
    """Whatever the tokens, stops, and number of tokens between two looks."""
    tokenizer = WordTokenizer()
    params = SamplingParams(stop=tuple(stops), min_new_tokens=least, max_new_tokens=500)
    out = Output(tokenizer, params, (), 500)
    joined, tokens = "", []
    for count, token in enumerate(ids, 1):
        out.take(token)
        if count % every == 0 or out.finish_reason is not None:
            update = out.news("r")
            joined += update.text
            tokens += update.token_ids
        if out.finish_reason is not None:
            break
    else:
        out.end("abort")
        update = out.news("r")
        joined += update.text
        tokens += update.token_ids
    pieces = [tokenizer.token_bytes(index) for index in ids]
    assert joined == out.text == reference(pieces, stops, least, 500)
    assert tokens == out.tokens
