# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Tokenizer training: deterministic, bounded, interruptible, with clear errors."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openllm.core.errors import ConfigError, TokenizerError
from openllm.text.sentencepiece_tokenizer import SentencePieceTokenizer
from openllm.text.tokenizer import Tokenizer
from openllm.text.training import (
    FILES,
    TokenizerSettings,
    sample,
    train_model,
    write_tokenizer,
)

SMALL = TokenizerSettings(vocab_size=700)


def test_same_text_same_model(corpus: list[str]) -> None:
    assert train_model(corpus, SMALL) == train_model(iter(corpus), SMALL)


def test_the_seed_chooses_the_sample(corpus: list[str]) -> None:
    documents = [(str(number), text) for number, text in enumerate(corpus)]
    size = sum(len(text.encode()) for text in corpus)

    def chosen(seed: int, order: int = 1) -> list[str]:
        settings = TokenizerSettings(vocab_size=700, sample_bytes=size // 4, seed=seed)
        return sorted(sample(documents[::order], size, settings))

    assert chosen(1) == chosen(1, order=-1) != chosen(2)
    assert 0.1 < sum(len(text.encode()) for text in chosen(1)) / size < 0.4


def test_the_sample_is_bounded_also_within_one_document() -> None:
    text = "one word after the other " * 40_000
    settings = TokenizerSettings(sample_bytes=100_000)
    pieces = list(sample([("book", text)], len(text), settings))
    assert 60_000 < sum(map(len, pieces)) < 140_000


@given(text=st.text(alphabet="ab \n", max_size=300))
def test_all_of_a_small_text_is_taken(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openllm.text.training._PIECE_CHARS", 7)
        pieces = list(sample([("id", text)], len(text), TokenizerSettings()))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= 7 for piece in pieces)
    for piece in pieces[1:]:
        assert piece[0] in " \n" or len(piece) == 7 or " " not in piece


def test_newlines_spaces_and_digits(tokenizer: Tokenizer) -> None:
    pieces = [tokenizer.piece(index) for index in range(512, tokenizer.vocab_size)]
    assert "\n\n" in pieces and "\u2581\u2581\u2581\u2581" in pieces
    assert not any("\n" in piece and piece.strip("\n") for piece in pieces)
    assert not any(len(piece) > 1 and any(map(str.isdecimal, piece)) for piece in pieces)


def test_text_that_sentencepiece_would_skip_is_used() -> None:
    starts, ends = ("river", "stone", "mountain", "forest"), ("side", "ford", "walk", "light")
    lines = [f"{start}{end} \u2585 \x1f" for start in starts for end in ends] * 20
    tokenizer = SentencePieceTokenizer(train_model(lines, TokenizerSettings(vocab_size=576)))
    assert len(tokenizer.encode("mountain")) == 1


@pytest.mark.parametrize(
    ("texts", "vocab_size", "message"),
    [
        ([], 1000, "there is no text"),
        (["", "\n"], 1000, "no text|at most"),
        (["ab ab ab"], 1000, r"at most \d+, not 1000; give more text"),
        (["".join(map(chr, range(0x4E00, 0x5E00)))], 1000, "choose a larger --vocab-size"),
    ],
)
def test_unfit_text(texts: list[str], vocab_size: int, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        train_model(texts, TokenizerSettings(vocab_size=vocab_size))


def test_too_large_a_vocabulary_names_the_largest(corpus: list[str]) -> None:
    with pytest.raises(TokenizerError, match=r"choose --vocab-size (\d+) or less") as caught:
        train_model(corpus[:20], TokenizerSettings(vocab_size=30_000))
    largest = int(str(caught.value).split("--vocab-size ")[1].split()[0])
    model = train_model(corpus[:20], TokenizerSettings(vocab_size=largest))
    assert SentencePieceTokenizer(model).vocab_size == largest


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vocab_size": 500}, "must be at least 576: 256 control tokens, 256 bytes"),
        ({"vocab_size": 10**7}, "vocab_size"),
        ({"sample_bytes": 0}, "sample_bytes"),
        ({"character_coverage": 0.5}, "character_coverage"),
        ({"vocab": 5}, "did you mean 'vocab_size'"),
    ],
)
def test_bad_settings(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TokenizerSettings.parse(values, "tokenizer")


def test_an_interrupt_ends_the_training_process(
    corpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)

    def interrupted() -> Iterator[str]:
        yield from corpus
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    with pytest.raises(KeyboardInterrupt):
        train_model(interrupted(), SMALL)
    assert len(started) == 1 and started[0].returncode is not None


def test_a_killed_training_process_says_so(
    corpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/sh")
    monkeypatch.setattr("openllm.text.training._COMMAND", ("-c", "kill -9 $$"))
    with pytest.raises(TokenizerError, match=r"killed by signal 9.*--sample-bytes 12500000"):
        train_model(corpus, SMALL)


def test_the_folder(tokenizer_folder: Path, tokenizer: Tokenizer) -> None:
    assert sorted(file.name for file in tokenizer_folder.iterdir()) == sorted(FILES)
    facts = json.loads((tokenizer_folder / "openllm_tokenizer.json").read_text(encoding="utf-8"))
    assert facts["fingerprint"] == tokenizer.fingerprint
    assert facts["format_version"] == 1
    assert facts["pieces"]["control"] == facts["pieces"]["byte"] == 256
    assert sum(facts["pieces"].values()) == 1000
    assert facts["controls"]["<|assistant|>"] == 6


def test_a_folder_with_other_files_is_not_replaced(
    tokenizer_folder: Path, corpus: list[str], tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    model = (tokenizer_folder / "tokenizer.model").read_bytes()
    with pytest.raises(TokenizerError, match=r"contains other files"):
        write_tokenizer(tmp_path, model, {})
    with pytest.raises(TokenizerError, match="is a file"):
        write_tokenizer(tmp_path / "file", model, {})
    assert (tmp_path / "thesis.txt").read_text() == (tmp_path / "file").read_text() == "dear"


def test_an_old_tokenizer_is_replaced_whole(tokenizer_folder: Path, tmp_path: Path) -> None:
    model = (tokenizer_folder / "tokenizer.model").read_bytes()
    write_tokenizer(tmp_path / "t", model, {"settings": "first"})
    write_tokenizer(tmp_path / "t", model, {"settings": "second"})
    assert "second" in (tmp_path / "t" / "openllm_tokenizer.json").read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["t"]
