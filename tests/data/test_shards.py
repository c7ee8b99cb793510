# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Token shards: their contents, that workers do not change a byte, and how damage is handled."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.text.imported import write_folder

from openllm.core.errors import DataError, TokenizerError
from openllm.core.files import read_json, write_json
from openllm.data.document import SPLITS
from openllm.data.shard_writer import encode_documents, write_shards
from openllm.data.shards import Shards, read_shard_index, split_files, token_dtype
from openllm.text.load import load_tokenizer
from openllm.text.tokenizer import Tokenizer
from openllm.text.training import TokenizerSettings, train_model, write_tokenizer

WORDS = [
    "the",
    "old",
    "fox",
    "under",
    "a",
    "bridge",
    "said",
    "été",
    "déjà",
    "garçon",
    "“where?”",
    "今天",
    "天气",
    "12",
    "345",
    ",",
    ".",
    "!",
    "—",
    "\n\n",
]


def write_prepared(folder: Path, texts: dict[str, list[str]]) -> Path:
    """A prepared folder with these texts by split."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = {}
    for split in SPLITS:
        docs = texts.get(split, [])
        with open(folder / f"{split}.jsonl", "w", encoding="utf-8") as handle:
            for number, text in enumerate(docs):
                record = {"id": f"{split}-{number}", "text": text, "title": None, "source": "test"}
                handle.write(json.dumps(record, ensure_ascii=False) + "\n")
        splits[split] = {
            "documents": len(docs),
            "bytes": sum(len(text.encode()) for text in docs),
            "words": sum(len(text.split()) for text in docs),
            "sha256": str(hash(tuple(docs))),
        }
    index = {"kind": "documents", "corpus": "user", "sources": [], "splits": splits}
    write_json(folder / "index.json", {**index, "fingerprint": "f" * 64, "config": {}})
    return folder


def some_texts(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, 80))) for _ in range(count)]


TEXTS = {"train": some_texts(300, 0), "validation": some_texts(20, 1), "test": ["é", "the fox."]}


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "folder"
    settings = TokenizerSettings(vocab_size=580)
    write_tokenizer(folder, train_model(TEXTS["train"], settings), {})
    return folder


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared", TEXTS)


@pytest.fixture
def shards(data: Path, tokenizer_folder: Path, tmp_path: Path) -> Path:
    write_shards(data, tokenizer_folder, tmp_path / "shards")
    return tmp_path / "shards"


def test_each_document_is_bos_text_eos(shards: Path, tokenizer: Tokenizer) -> None:
    for split, texts in TEXTS.items():
        opened = Shards.open(shards, split, tokenizer.fingerprint)
        assert opened.num_documents == len(texts)
        for number, text in enumerate(texts):
            ids = opened.document(number)
            assert ids.dtype == np.uint16
            assert [1, *tokenizer.encode(text), 2] == ids.tolist()
            assert tokenizer.decode(ids.tolist()) == text
        assert opened.doc_bytes.tolist() == [len(text.encode()) for text in texts]
        assert opened.doc_words.tolist() == [len(text.split()) for text in texts]
        assert (opened.offsets.dtype, opened.doc_bytes.dtype) == (np.uint64, np.uint32)
        opened.verify()


def test_the_index_counts(shards: Path, tokenizer: Tokenizer) -> None:
    index = read_shard_index(shards)
    assert index["tokenizer_fingerprint"] == tokenizer.fingerprint
    assert index["data_fingerprint"] == "f" * 64
    for split, texts in TEXTS.items():
        facts = index["splits"][split]
        assert facts["documents"] == len(texts)
        assert facts["tokens"] == sum(len(tokenizer.encode(text)) + 2 for text in texts)
        assert facts["bytes"] == sum(len(text.encode()) for text in texts)
        assert facts["words"] == sum(len(text.split()) for text in texts)
        assert set(facts["files"]) == set(split_files(split).values())
        assert all(len(file["sha256"]) == 64 for file in facts["files"].values())


def test_workers_and_batches_change_nothing(
    data: Path,
    tokenizer_folder: Path,
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("openllm.data.shard_writer._BATCH_CHARS", 700)
    for workers in (1, 2, 3):
        other = tmp_path / f"with-{workers}"
        write_shards(data, tokenizer_folder, other, workers=workers)
        for file in sorted(shards.iterdir()):
            assert (other / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_text_is_reported(data: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    amounts: list[int] = []
    write_shards(data, tokenizer_folder, tmp_path / "shards", report=amounts.append)
    assert sum(amounts) == sum(len(text.encode()) for texts in TEXTS.values() for text in texts)


def test_large_vocabularies_take_four_bytes() -> None:
    assert token_dtype(2**16).itemsize == 2
    assert token_dtype(2**16 + 1).itemsize == 4


def test_a_batch_of_nothing_but_an_empty_text(tokenizer: Tokenizer) -> None:
    batch = encode_documents([""], tokenizer)
    assert (batch.lengths, batch.sizes, batch.words) == ([2], [0], [0])


def test_without_bos_the_first_token_is_not_scored(tmp_path: Path, data: Path) -> None:
    folder = write_folder(tmp_path / "gpt2", "gpt2")
    tokenizer = load_tokenizer(folder)
    write_shards(data, folder, tmp_path / "shards", workers=2)
    for split, texts in TEXTS.items():
        opened = Shards.open(tmp_path / "shards", split, tokenizer.fingerprint)
        for number, text in enumerate(texts):
            ids = opened.document(number).tolist()
            assert ids == [*tokenizer.encode(text), tokenizer.eos_id]
            scored = tokenizer.decode_bytes(ids[1:])
            assert opened.doc_bytes[number] == len(scored)
            assert opened.doc_words[number] == len(scored.split())
        facts = read_shard_index(tmp_path / "shards")["splits"][split]
        assert facts["bytes"] == sum(len(text.encode()) for text in texts)


def test_a_tokenizer_without_eos_makes_no_shards(tmp_path: Path, data: Path) -> None:
    folder = write_folder(tmp_path / "gpt2", "gpt2", eos_token=None)
    with pytest.raises(TokenizerError, match=r"has no eos token.*tokenizer_config\.json"):
        write_shards(data, folder, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_an_empty_split_can_be_opened(tokenizer_folder: Path, tmp_path: Path) -> None:
    data = write_prepared(tmp_path / "data", {"train": ["the fox"]})
    write_shards(data, tokenizer_folder, tmp_path / "shards")
    fingerprint = load_tokenizer(tokenizer_folder).fingerprint
    empty = Shards.open(tmp_path / "shards", "test", fingerprint)
    assert (empty.num_documents, len(empty.tokens)) == (0, 0)
    empty.verify()


def test_no_training_documents(tokenizer_folder: Path, tmp_path: Path) -> None:
    data = write_prepared(tmp_path / "data", {"test": ["the fox"]})
    with pytest.raises(DataError, match="has no training documents"):
        write_shards(data, tokenizer_folder, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_documents_that_are_not_those_that_were_prepared(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    folder = write_prepared(tmp_path / "data", TEXTS)
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(lines[:-5]), encoding="utf-8")
    with pytest.raises(DataError, match=r"has 295 documents.*says 300; prepare the folder again"):
        write_shards(folder, tokenizer_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_tokenizer_is_refused(shards: Path) -> None:
    with pytest.raises(TokenizerError, match=r"was made with tokenizer .*, not with 0000") as e:
        Shards.open(shards, "train", "0" * 64)
    assert "openllm data tokenize" in str(e.value)


def test_unknown_split(shards: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="no split 'dev'; it has train, validation, test"):
        Shards.open(shards, "dev", tokenizer.fingerprint)


@pytest.mark.parametrize("name", ["train.bin", "train.offsets.npy", "train.words.npy"])
def test_truncated_files_are_found_on_opening(
    shards: Path, tokenizer: Tokenizer, name: str
) -> None:
    whole = (shards / name).read_bytes()
    (shards / name).write_bytes(whole[:-2])
    with pytest.raises(DataError, match=rf"{name} is damaged: \d+ bytes instead of {len(whole)}"):
        Shards.open(shards, "train", tokenizer.fingerprint)
    (shards / name).unlink()
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        Shards.open(shards, "train", tokenizer.fingerprint)


def test_changed_bytes_are_found_by_verify(shards: Path, tokenizer: Tokenizer) -> None:
    data = bytearray((shards / "train.bin").read_bytes())
    data[100] ^= 1
    (shards / "train.bin").write_bytes(data)
    opened = Shards.open(shards, "train", tokenizer.fingerprint)
    with pytest.raises(DataError, match=r"train\.bin is damaged: wrong checksum"):
        opened.verify()


def test_a_broken_header(shards: Path, tokenizer: Tokenizer) -> None:
    path = shards / "train.offsets.npy"
    path.write_bytes(b"X" + path.read_bytes()[1:])
    with pytest.raises(DataError, match=r"train\.offsets\.npy is damaged"):
        Shards.open(shards, "train", tokenizer.fingerprint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index | {"kind": "documents"}, "not the index of token shards"),
        (lambda index: {"kind": "shards"}, "not the index of token shards"),
        (lambda index: index | {"format_version": 99}, "has format_version 99"),
    ],
)
def test_foreign_indexes(
    shards: Path, change: Callable[[dict[str, object]], dict[str, object]], message: str
) -> None:
    index = read_json(shards / "index.json", DataError, "")
    (shards / "index.json").write_text(json.dumps(change(index)))
    with pytest.raises(DataError, match=message):
        Shards.open(shards, "train", "0" * 64)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"index\.json does not exist; recreate the shards with"):
        Shards.open(tmp_path / "nowhere", "train", "0" * 64)
