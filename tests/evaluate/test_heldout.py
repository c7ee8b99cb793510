# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openllm.core.errors import DataError, TokenizerError
from openllm.data.reading.readers import ReadOptions
from openllm.evaluate.heldout import read_heldout
from openllm.recipes.tokenize import tokenize
from openllm.text.load import load_tokenizer
from openllm.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(trained: Any) -> Tokenizer:
    return load_tokenizer(trained.tokenizer)


def test_a_prepared_folder_and_its_shards_are_the_same_text(
    trained: Any, tokenizer: Tokenizer
) -> None:
    prepared = read_heldout(trained.data, "test", tokenizer)
    shards = read_heldout(tokenize(trained.data, trained.tokenizer), "test", tokenizer)
    assert len(prepared.texts) == 60
    assert prepared.texts == shards.texts
    assert prepared.fingerprint == shards.fingerprint == f"{1:064x}"
    np.testing.assert_array_equal(prepared.doc_bytes, shards.doc_bytes)
    np.testing.assert_array_equal(prepared.doc_words, shards.doc_words)
    for text, ours, theirs in zip(prepared.texts, prepared.tokens, shards.tokens, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert (ours[0], ours[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
        assert tokenizer.decode(ours[1:-1].tolist()) == text


def test_files_of_several_formats(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = ["Über das Wasser.", "A second text,\nin two lines."]
    records = tmp_path / "a.jsonl"
    records.write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    passages = tmp_path / "b.txt"
    passages.write_text("\n\n".join(texts))
    by_field = read_heldout(records, "test", tokenizer, ReadOptions(text_key="body"))
    by_passage = read_heldout(passages, "test", tokenizer, ReadOptions(split_paragraphs=True))
    assert by_field.texts == texts
    assert [text.strip() for text in by_passage.texts] == texts
    assert by_field.split is None
    assert by_field.doc_bytes.tolist() == [17, 28]
    assert by_field.doc_words.tolist() == [3, 6]
    assert len(by_field.fingerprint) == 64


def test_broken_records_are_counted_and_said(
    tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\nnot json\n{"other": 1}\n{"text": "  "}\n')
    assert read_heldout(path, "test", tokenizer).texts == ["good"]
    assert "2 records could not be read; the first is at line 2" in capsys.readouterr().err


def test_a_sample_is_seeded_and_keeps_the_order(trained: Any, tokenizer: Tokenizer) -> None:
    whole = read_heldout(trained.data, "test", tokenizer)
    some = whole.sample(10, seed=3)
    places = [whole.texts.index(text) for text in some.texts]
    assert len(set(places)) == 10
    assert places == sorted(places)
    assert some.texts == whole.sample(10, seed=3).texts
    assert some.texts != whole.sample(10, seed=4).texts
    assert whole.sample(None, seed=0) is whole
    assert whole.sample(1000, seed=0) is whole
    for text, tokens, size in zip(some.texts, some.tokens, some.doc_bytes, strict=True):
        assert tokenizer.decode(tokens[1:-1].tolist()) == text
        assert size == len(text.encode())


def test_what_cannot_be_measured_on_is_refused(
    tmp_path: Path, tokenizer: Tokenizer, trained: Any, prepare: Callable[..., None]
) -> None:
    def refused(path: Path, split: str = "test") -> str:
        with pytest.raises((DataError, TokenizerError)) as caught:
            read_heldout(path, split, tokenizer)
        return str(caught.value)

    prepare(tmp_path / "empty", (3, 3, 0))
    assert "has no documents" in refused(tmp_path / "empty")
    assert "choose one of" in refused(trained.data, "dev")
    assert "does not exist" in refused(tmp_path / "nowhere")
    (tmp_path / "plain").mkdir()
    assert "openllm data prepare" in refused(tmp_path / "plain")
    (tmp_path / "picture.bmp").write_bytes(b"BM")
    assert "unknown file type" in refused(tmp_path / "picture.bmp")
    (tmp_path / "void.txt").write_text(" \n")
    assert "contains no text" in refused(tmp_path / "void.txt")


def test_shards_of_another_tokenizer_are_refused(
    tmp_path: Path, trained: Any, tokenizer: Tokenizer, prepare: Callable[..., None]
) -> None:
    from openllm.text.training import TokenizerSettings, train_model, write_tokenizer

    lines = (trained.data / "train.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    model = train_model(texts, TokenizerSettings(vocab_size=600))
    write_tokenizer(tmp_path / "other", model, {})
    prepare(tmp_path / "data", (20, 5, 5))
    shards = tokenize(tmp_path / "data", tmp_path / "other")
    with pytest.raises(TokenizerError, match="was made with tokenizer"):
        read_heldout(shards, "test", tokenizer)
