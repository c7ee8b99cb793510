# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`transformers.AutoTokenizer` gives our ids and our text, in every language and on fuzzed text."""

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from tests.text.strategies import TEXTS

from openllm.text.controls import BOS, CONTROLS, EOS, PAD, UNK
from openllm.text.load import load_tokenizer
from openllm.text.tokenizer import Tokenizer
from openllm.text.training import TokenizerSettings, train_model, write_tokenizer

transformers = pytest.importorskip("transformers")


def auto(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def hf(tokenizer_folder: Path) -> Any:
    return auto(tokenizer_folder)


@pytest.fixture(scope="module")
def world(languages: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary that has tokens for most scripts of the world."""
    folder = tmp_path_factory.mktemp("world") / "folder"
    write_tokenizer(folder, train_model(languages, TokenizerSettings(vocab_size=12_000)), {})
    return folder


def ids_of(hf: Any, texts: list[str]) -> list[list[int]]:
    return hf(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def strings(value: Any) -> Iterator[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def first_texts(path: Path, budget: int) -> list[str]:
    """Texts from the beginning of a data file, at most `budget` characters in all."""
    texts: list[str] = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = line if ".txt" in path.name else json.loads(line)
            for text in strings(record):
                texts.append(text[: max(0, budget)])
                budget -= len(text)
                if budget <= 0:
                    return texts
    return texts


def check(tokenizer: Tokenizer, hf: Any, texts: list[str]) -> None:
    ours = tokenizer.encode_batch(texts)
    assert ids_of(hf, texts) == ours
    plain = [text.replace("\u2581", " ") for text in texts]
    assert [tokenizer.decode(ids) for ids in ours] == plain
    assert hf.batch_decode(ours, skip_special_tokens=True) == plain


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
@example(text="\u2581a\u2581 \u2581")
@example(text="".join(CONTROLS))
@example(text="don't  have , a space . before punctuation ? n't 's")
def test_fuzzed_text(tokenizer: Tokenizer, hf: Any, text: str) -> None:
    check(tokenizer, hf, [text])


@pytest.mark.integration
def test_every_language(world: Path, languages: list[str]) -> None:
    check(load_tokenizer(world), auto(world), languages)


@pytest.mark.integration
def test_every_data_set(world: Path, tokenizer_folder: Path, shared_data: Path) -> None:
    files = sorted(shared_data.rglob("*.jsonl.gz")) + sorted(shared_data.rglob("*.txt.gz"))
    assert len(files) > 80
    texts = [text for file in files for text in first_texts(file, 3_000)]
    for folder in (world, tokenizer_folder):
        check(load_tokenizer(folder), auto(folder), texts)


@pytest.mark.slow
def test_every_data_set_in_full(world: Path, shared_data: Path) -> None:
    tokenizer, hf = load_tokenizer(world), auto(world)
    for file in sorted(shared_data.rglob("*.jsonl.gz")) + sorted(shared_data.rglob("*.txt.gz")):
        texts = first_texts(file, 10**12)
        for start in range(0, len(texts), 5000):
            check(tokenizer, hf, texts[start : start + 5000])


@pytest.mark.parametrize("model_type", [None, "qwen3", "llama", "gpt2", "mistral"])
def test_in_a_model_folder(
    tokenizer: Tokenizer, tokenizer_folder: Path, tmp_path: Path, model_type: str | None
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tokenizer_folder, folder)
    if model_type:
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    hf = auto(folder)
    text = " the old fox\n\n    said:  “été” 今天"
    assert hf(text)["input_ids"] == [tokenizer.bos_id, *tokenizer.encode(text)]
    assert (hf.bos_token, hf.eos_token, hf.pad_token, hf.unk_token) == (BOS, EOS, PAD, UNK)
    assert (hf.bos_token_id, hf.eos_token_id, hf.pad_token_id, hf.unk_token_id) == (1, 2, 3, 0)
    assert len(hf) == hf.vocab_size == tokenizer.vocab_size
    hf.save_pretrained(tmp_path / "again")
    assert auto(tmp_path / "again")(text)["input_ids"] == hf(text)["input_ids"]


def test_bos_comes_first_unless_it_is_turned_off(
    tokenizer: Tokenizer, tokenizer_folder: Path, hf: Any
) -> None:
    ids = tokenizer.encode("the fox")
    assert hf("the fox")["input_ids"] == [tokenizer.bos_id, *ids]
    assert hf("the fox", add_special_tokens=False)["input_ids"] == ids
    off = transformers.AutoTokenizer.from_pretrained(tokenizer_folder, add_bos_token=False)
    assert off("the fox")["input_ids"] == ids


def test_names_of_controls_are_parsed_only_where_allowed(tokenizer: Tokenizer, hf: Any) -> None:
    text = "the <|user|> fox"
    parsed = hf(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.controls["<|user|>"] in parsed
    assert ids_of(hf, [text]) == [tokenizer.encode(text)]
    assert hf.decode(parsed, skip_special_tokens=True) == "the  fox"


def test_merges_are_written_for_older_readers(tokenizer_folder: Path) -> None:
    content = json.loads((tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"))
    merges = content["model"]["merges"]
    assert merges
    assert all(isinstance(merge, str) and merge.count(" ") == 1 for merge in merges)
