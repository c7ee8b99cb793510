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
from openllm.text.load import load_tokenizer

TEXTS = {"squad": WORK / "squad", "quarter": WORK / "squad-quarter"}
"""All of it, and every fourth passage of its training split."""
TITLES = ("--title-key", "title", "--title-key", "source")
CONTEXT = 512
"""Context length of the textbook GPT."""
CHECKS = 10


def vocabulary(vocab_size: int) -> Path:
    """Tokenizer folder."""
    return WORK / f"tokenizer-{vocab_size}"


def prepare_size(size: Size, row: Row) -> None:
    """Prepare data and tokenizer, once."""
    whole, quarter = TEXTS.values()
    if not (whole / "index.json").exists():
        source = ("squad", "--source", str(SHARED / "squad"))
        prepare_main([*source, *TITLES, "--out", str(whole)])
    if row.text == "quarter" and not (quarter / "index.json").exists():
        lines = (whole / "train.jsonl").read_text().splitlines(keepends=True)
        passages = WORK / "quarter.jsonl"
        passages.write_text("".join(lines[::4]))
        prepare_main([str(passages), *TITLES, "--out", str(quarter)])
    vocab_size = row.vocab_size or size.vocab_size
    folder = vocabulary(vocab_size)
    if not (folder / "tokenizer.json").exists():
        words = [str(whole), "--vocab-size", str(vocab_size), "--out", str(folder)]
        tokenizer.train_main(words)


def open_shards(row: Row, size: Size, split: str) -> Shards:
    """Open a split in a row's vocabulary; the test split is that of all text."""
    folder = vocabulary(row.vocab_size or size.vocab_size)
    text = TEXTS["squad" if split == "test" else row.text]
    return Shards.open(tokenize(text, folder), split, load_tokenizer(folder).fingerprint)
