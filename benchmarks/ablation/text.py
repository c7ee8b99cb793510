# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The text of the ablation: SQuAD, prepared once, and its tokens."""

from pathlib import Path

from record import SHARED

from ablation.rows import WORK, Row, Size
from openllm.data.shards import Shards
from openllm.recipes import tokenizer
from openllm.recipes.prepare import prepare_main
from openllm.recipes.tokenize import tokenize
from openllm.text.tokenizer import Tokenizer

DATA = WORK / "squad"
CONTEXT = 512
"""Tokens a window of the textbook GPT."""
CHECKS = 10


def vocabulary(vocab_size: int) -> Path:
    """Folder of a tokenizer."""
    return WORK / f"tokenizer-{vocab_size}"


def prepare_size(size: Size, row: Row) -> None:
    """Data and tokenizer, made once."""
    if not (DATA / "index.json").exists():
        titles = ["--title-key", "title", "--title-key", "source"]
        prepare_main(["squad", "--source", str(SHARED / "squad"), *titles, "--out", str(DATA)])
    vocab_size = row.vocab_size or size.vocab_size
    folder = vocabulary(vocab_size)
    if not (folder / "tokenizer.json").exists():
        words = [str(DATA), "--vocab-size", str(vocab_size), "--out", str(folder)]
        tokenizer.train_main(words)


def open_shards(row: Row, size: Size, split: str) -> Shards:
    """The tokens of a split in a row's vocabulary."""
    folder = vocabulary(row.vocab_size or size.vocab_size)
    return Shards.open(tokenize(DATA, folder), split, Tokenizer.load(folder).fingerprint)
