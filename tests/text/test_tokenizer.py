# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Encoding and decoding: exact, free of control tokens, and the same as SentencePiece's."""

import io
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.text.strategies import TEXTS

from openllm.core.errors import TokenizerError
from openllm.text.controls import CONTROLS, NUM_CONTROLS
from openllm.text.load import load_tokenizer
from openllm.text.sentencepiece_tokenizer import SentencePieceTokenizer
from openllm.text.tokenizer import MODEL_FILE, SETTINGS_FILE, Tokenizer


@pytest.fixture(scope="module")
def reference(tokenizer_folder: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_folder / MODEL_FILE))


def test_the_first_ids_are_controls_then_bytes(tokenizer: Tokenizer) -> None:
    assert tuple(map(tokenizer.piece, range(NUM_CONTROLS))) == CONTROLS
    assert tokenizer.controls == {name: index for index, name in enumerate(CONTROLS)}
    assert [tokenizer.token_bytes(256 + byte) for byte in range(256)] == [
        bytes([byte]) for byte in range(256)
    ]
    assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2, 3)
    assert len(set(CONTROLS)) == NUM_CONTROLS == 256
    assert tokenizer.vocab_size == 1000


@settings(max_examples=400, deadline=None)
@given(text=TEXTS)
@example(text="<s> <|user|> <|bos|><|eos|> <think></think> <0x41> <|spare_3|>")
@example(text="  two  spaces\n\n\n    and an indent\t\tand tabs \n")
@example(text="a\x00b \x1f \u2585 \ufeff")
def test_round_trip_without_controls(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text.replace("\u2581", " ")
    assert all(index >= NUM_CONTROLS for index in ids)


@settings(max_examples=400, deadline=None)
@given(text=TEXTS)
@example(text="\u2581 \u2581\u2581a \u2581b")
def test_same_ids_as_sentencepiece(
    tokenizer: Tokenizer, reference: sentencepiece.SentencePieceProcessor, text: str
) -> None:
    assert tokenizer.encode(text) == reference.encode(text)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
@example(text=" \u2581 a\n\n b \n c")
def test_long_texts_are_cut_without_a_trace(
    tokenizer: Tokenizer, reference: sentencepiece.SentencePieceProcessor, text: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openllm.text.words._PART_CHARS", 3)
        assert tokenizer.encode(text) == reference.encode(text)


def test_real_text_in_all_languages(
    tokenizer: Tokenizer,
    reference: sentencepiece.SentencePieceProcessor,
    languages: list[str],
) -> None:
    assert len(languages) > 300
    encoded = tokenizer.encode_batch(languages)
    assert encoded == reference.encode(languages)
    assert [tokenizer.decode(ids) for ids in encoded] == languages


def test_a_vocabulary_that_joins_words_is_encoded_whole() -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the old fox, the old bridge. the old fox"] * 50),
        model_writer=model,
        model_type="bpe",
        vocab_size=313,
        byte_fallback=True,
        split_by_whitespace=False,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        pad_id=3,
        minloglevel=2,
    )
    tokenizer = SentencePieceTokenizer(model.getvalue())
    reference = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    text = "the old fox, the old bridge"
    assert any("\u2581" in tokenizer.piece(index)[1:] for index in tokenizer.encode(text))
    assert tokenizer.encode(text) == reference.encode(text)


def test_lone_surrogates_become_replacement_characters(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud800b \udfff")) == "a\ufffdb \ufffd"
    assert tokenizer.decode(tokenizer.encode("\ud83d\ude00")) == "\N{GRINNING FACE}"


def test_words_beyond_the_cache(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    small = pickle.loads(pickle.dumps(tokenizer))
    monkeypatch.setattr("openllm.text.words._CACHE_SIZE", 3)
    texts = ["one two three four five six", "six five four three two one", "one, two! three?"]
    for _ in range(3):
        assert small.encode_batch(texts) == tokenizer.encode_batch(texts)
    cache = small._words._cache
    assert 0 < len(cache) <= 3 and 0 < len(cache._older) <= 3


def test_endless_words_are_not_kept(tokenizer: Tokenizer) -> None:
    small = pickle.loads(pickle.dumps(tokenizer))
    text = "a" * 100 + " " + "b" * 100
    assert small.encode(text) == tokenizer.encode(text)
    assert not small._words._cache


@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_packed_ids_are_the_same_ids(tokenizer: Tokenizer, text: str) -> None:
    assert np.frombuffer(tokenizer.encode_packed(text), np.uint16).tolist() == tokenizer.encode(
        text
    )


@given(ids=st.lists(st.integers(0, 999)))
def test_decode_takes_any_ids(tokenizer: Tokenizer, ids: list[int]) -> None:
    data = b"".join(tokenizer.token_bytes(index) for index in ids)
    assert tokenizer.decode(ids) == data.decode("utf-8", "replace")


def test_controls_give_no_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("é one")
    with_controls = [tokenizer.bos_id, *(part for index in ids for part in (index, 7)), 0, 255]
    assert tokenizer.decode(with_controls) == "é one"


@pytest.mark.parametrize("index", [1000, -1, 70_000])
def test_unknown_ids_are_refused(tokenizer: Tokenizer, index: int) -> None:
    with pytest.raises(
        TokenizerError, match=f"token {index} is outside this vocabulary of size 1000"
    ):
        tokenizer.decode([300, index])
    with pytest.raises(TokenizerError, match="use the tokenizer that the model"):
        tokenizer.token_bytes(index)


def test_a_pickled_copy_is_the_same(tokenizer: Tokenizer) -> None:
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.fingerprint == tokenizer.fingerprint
    assert copy.encode("the old bridge") == tokenizer.encode("the old bridge")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no folder .*nowhere.*openllm tokenizer train"):
        load_tokenizer(tmp_path / "nowhere")


def test_no_tokenizer_in_the_folder(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"has no tokenizer\.model"):
        load_tokenizer(tmp_path)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(TokenizerError, match=r"cannot be read .*give a tokenizer folder"):
        load_tokenizer(tmp_path / "file")


@pytest.mark.parametrize("damage", ["", "hello", "half", "last byte"])
def test_a_damaged_model(tokenizer_folder: Path, tmp_path: Path, damage: str) -> None:
    data = (tokenizer_folder / MODEL_FILE).read_bytes()
    cut = {"half": data[: len(data) // 2], "last byte": data[:-1]}
    (tmp_path / MODEL_FILE).write_bytes(cut.get(damage, damage.encode()))
    with pytest.raises(TokenizerError, match="damaged or not a SentencePiece model"):
        load_tokenizer(tmp_path)


def test_a_model_that_is_not_the_described_one(tokenizer_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(tokenizer_folder, folder)
    data = (folder / MODEL_FILE).read_bytes().replace(b"<|spare_7|>", b"<|spare_x|>")
    (folder / MODEL_FILE).write_bytes(data)
    with pytest.raises(TokenizerError, match=r"does not match openllm_tokenizer\.json"):
        load_tokenizer(folder)
    (folder / SETTINGS_FILE).write_text("{")
    with pytest.raises(TokenizerError, match="is not valid JSON"):
        load_tokenizer(folder)


def test_a_model_without_bos(tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f g"] * 9),
        model_writer=model,
        model_type="bpe",
        vocab_size=12,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / MODEL_FILE).write_bytes(model.getvalue())
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.pad_id, tokenizer.prefix) == (None, None, [])
    assert tokenizer.eos_id is not None and tokenizer.end_ids == {tokenizer.eos_id}
