# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The text a model is evaluated on: a split of a prepared folder or of shards, or one file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openllm.core.errors import DataError
from openllm.core.files import read_json, sha256_file
from openllm.core.log import warn
from openllm.data.document import Document, read_documents, read_index
from openllm.data.reading.readers import Broken, ReadOptions
from openllm.data.reading.sources import open_source, records
from openllm.data.shard_writer import encode_documents
from openllm.data.shards import Shards, read_shard_index, token_dtype
from openllm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class HeldOut:
    """Held-out documents as text and as tokens.

    Attributes:
        name: of the folder or file.
        split: of the folder; None for a file.
        fingerprint: SHA-256 of the whole dataset, or of the file.
        texts: of each document.
        tokens: of each document, with eos, and with bos if the tokenizer adds it.
        doc_bytes: UTF-8 bytes of each text; without bos all but those of the first token, which
            nothing predicts.
        doc_words: whitespace-separated words of the same.
    """

    name: str
    split: str | None
    fingerprint: str
    texts: list[str]
    tokens: list[np.ndarray]
    doc_bytes: np.ndarray
    doc_words: np.ndarray

    def sample(self, count: int | None, seed: int) -> "HeldOut":
        """Draw `count` documents without replacement, keeping their order; None keeps all."""
        if count is None or count >= len(self.texts):
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self.texts))[:count])
        return HeldOut(
            self.name,
            self.split,
            self.fingerprint,
            [self.texts[i] for i in chosen],
            [self.tokens[i] for i in chosen],
            self.doc_bytes[chosen],
            self.doc_words[chosen],
        )


def read_heldout(
    path: Path, split: str, tokenizer: Tokenizer, options: ReadOptions | None = None
) -> HeldOut:
    """Read held-out text and tokenise it for a model.

    Args:
        path: a folder written by 'openllm data prepare' or 'openllm data tokenize', or a file in
            a format that 'openllm data prepare' reads.
        split: of the folder; a file has none.
        tokenizer: the model's.
        options: which fields of a file hold the text.

    Raises:
        DataError: nothing there, no such split, or no text.
        TokenizerError: the shards were made with another tokenizer.
    """
    if path.is_dir():
        kind = read_json(path / "index.json", DataError, _MEND).get("kind")
        if kind == "shards":
            return _from_shards(path, split, tokenizer)
        texts = [document.text for document in read_documents(path, split)]
        fingerprint = str(read_index(path).get("fingerprint"))
        found = _tokenized(path.name, split, fingerprint, texts, tokenizer)
        if not found.texts:
            raise DataError(
                f"the split '{split}' of {path} has no documents; prepare more text, "
                "or choose another split with --split"
            )
        return found
    if not path.exists():
        raise DataError(f"{path} does not exist; {_MEND}")
    texts = [document.text for document in _file_documents(path, options or ReadOptions())]
    found = _tokenized(path.name, None, sha256_file(path), texts, tokenizer)
    if not found.texts:
        raise DataError(f"{path} contains no text; give a file with at least one document")
    return found


_MEND = "give a folder written by 'openllm data prepare', or a file such as text.jsonl or text.txt"


def _tokenized(
    name: str, split: str | None, fingerprint: str, texts: Sequence[str], tokenizer: Tokenizer
) -> HeldOut:
    texts = [text for text in texts if text.strip()]
    batch = encode_documents(texts, tokenizer)
    ids = np.frombuffer(batch.tokens, token_dtype(tokenizer.vocab_size)).astype(np.int32)
    tokens = np.split(ids, np.cumsum(batch.lengths)[:-1]) if texts else []
    doc_bytes, doc_words = np.array(batch.scored, np.int64), np.array(batch.words, np.int64)
    return HeldOut(name, split, fingerprint, texts, tokens, doc_bytes, doc_words)


def _from_shards(path: Path, split: str, tokenizer: Tokenizer) -> HeldOut:
    shards = Shards.open(path, split, tokenizer.fingerprint)
    tokens = [np.asarray(shards.document(i), np.int32) for i in range(shards.num_documents)]
    if not tokens:
        raise DataError(f"the split '{split}' of {path} has no documents; choose another")
    return HeldOut(
        path.name,
        split,
        str(read_shard_index(path)["data_fingerprint"]),
        [tokenizer.decode(document.tolist()) for document in tokens],
        tokens,
        np.asarray(shards.doc_bytes, np.int64),
        np.asarray(shards.doc_words, np.int64),
    )


def _file_documents(path: Path, options: ReadOptions) -> Iterator[Document]:
    """Yield the documents of one file; warn of records that cannot be read."""
    broken: list[Broken] = []
    for *_, record in records([open_source(str(path))], options, lambda count: None):
        if isinstance(record, Broken):
            broken.append(record)
        else:
            yield record
    if broken:
        first = broken[0]
        warn(
            f"{path}: {len(broken)} records could not be read; "
            f"the first is at line {first.line} ({first.reason}: {first.detail})"
        )
