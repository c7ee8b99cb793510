# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A small tokenizer, trained once."""

import gzip
import json
import random
from pathlib import Path

import pytest
from tests.text.strategies import SPACES, WORDS

from openllm.text.load import load_tokenizer
from openllm.text.tokenizer import Tokenizer
from openllm.text.training import TokenizerSettings, train_model, write_tokenizer


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """Documents of words of many scripts with all sorts of white space between them."""
    chance = random.Random(0)
    return [
        "".join(chance.choice(WORDS) + chance.choice(SPACES) for _ in range(200))
        for _ in range(150)
    ]


@pytest.fixture(scope="session")
def tokenizer_folder(corpus: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer folder with a vocabulary of 1,000."""
    folder = tmp_path_factory.mktemp("tokenizer") / "folder"
    write_tokenizer(folder, train_model(corpus, TokenizerSettings(vocab_size=1000)), {})
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    """The tokenizer of `tokenizer_folder`."""
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="session")
def languages(shared_data: Path) -> list[str]:
    """The beginning of the Declaration of Human Rights in all its languages."""
    with gzip.open(shared_data / "multilingual" / "udhr_all_languages.jsonl.gz", "rt") as lines:
        return [json.loads(line)["text"][:2500] for line in lines]
