# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Writing token shards with several processes.

Documents are streamed: a few batches are in memory at a time, and 16 bytes are kept per document.
Batches are written in the order of the documents, so the number of processes does not change a
byte.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openllm.core.errors import DataError
from openllm.core.files import atomic_folder, sha256_file, write_json
from openllm.data.document import SPLITS, read_documents, read_index
from openllm.data.parallel import ordered_map
from openllm.data.shards import INDEX, split_files, token_dtype
from openllm.text.load import load_tokenizer
from openllm.text.tokenizer import Tokenizer

_BATCH_CHARS = 250_000


@dataclass(frozen=True)
class Batch:
    """Consecutive documents, encoded.

    Attributes:
        tokens: their ids as bytes, as written to the file.
        lengths: of each document, in tokens.
        sizes: UTF-8 bytes of each text.
        scored, words: UTF-8 bytes and words that a model predicts.
    """

    tokens: bytes
    lengths: list[int]
    sizes: list[int]
    scored: list[int]
    words: list[int]


def encode_documents(texts: list[str], tokenizer: Tokenizer) -> Batch:
    """Each text as bos + ids + eos, or without bos if the tokenizer adds none.

    Nothing predicts the first token of a document, so without bos that part of a text is not
    scored.

    Raises:
        TokenizerError: the tokenizer has no eos.
    """
    dtype = token_dtype(tokenizer.vocab_size)
    native = dtype.newbyteorder("=")
    begin, end = (
        np.array(ids, native).tobytes() for ids in (tokenizer.prefix, [tokenizer.require_eos()])
    )
    encoded = [begin + tokenizer.encode_packed(text) + end for text in texts]
    sizes = [len(text.encode("utf-8", "replace")) for text in texts]
    words = [len(text.split()) for text in texts]
    scored = sizes
    if not tokenizer.prefix:
        first = [np.frombuffer(ids, native, count=1).tolist() for ids in encoded]
        unscored = [tokenizer.decode_bytes(ids) for ids in first]
        scored = [max(0, size - len(part)) for size, part in zip(sizes, unscored, strict=True)]
        words = [
            len(text.encode("utf-8", "replace")[len(part) :].split())
            for text, part in zip(texts, unscored, strict=True)
        ]
    return Batch(
        tokens=np.frombuffer(b"".join(encoded), native).astype(dtype, copy=False).tobytes(),
        lengths=[len(ids) // dtype.itemsize for ids in encoded],
        sizes=sizes,
        scored=scored,
        words=words,
    )


def write_shards(
    data: Path | str,
    tokenizer: Path | str,
    out: Path | str,
    *,
    workers: int = 1,
    report: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Tokenise a prepared folder into a shard folder, atomically.

    Args:
        data: a prepared folder.
        tokenizer: a tokenizer folder.
        out: replaced if it exists; the caller ensures that this loses nothing.
        workers: processes that encode; 1 encodes in this one.
        report: called with the number of text bytes just done.

    Returns:
        The contents of the index.

    Raises:
        DataError: no prepared folder, or one without training documents.
        TokenizerError: no tokenizer.
    """
    prepared = read_index(data)
    vocabulary = load_tokenizer(tokenizer)
    dtype = token_dtype(vocabulary.vocab_size)
    index: dict[str, Any] = {
        "kind": "shards",
        "dtype": dtype.str,
        "vocab_size": vocabulary.vocab_size,
        "bos_id": vocabulary.bos_id,
        "eos_id": vocabulary.eos_id,
        "tokenizer_fingerprint": vocabulary.fingerprint,
        "data_fingerprint": prepared["fingerprint"],
        "splits": {},
    }
    with atomic_folder(out) as target:
        for split in SPLITS:
            texts = (document.text for document in read_documents(data, split))
            batches = ordered_map(encode_documents, _batches(texts), workers, vocabulary)
            facts = _write_split(target, split, batches, dtype, report)
            _compare(Path(data), split, prepared["splits"][split], facts)
            index["splits"][split] = facts
        if not index["splits"]["train"]["documents"]:
            raise DataError(f"{data} has no training documents; prepare more text")
        write_json(target / INDEX, index)
    return index


def _compare(
    data: Path, split: str, prepared: Mapping[str, Any], written: Mapping[str, Any]
) -> None:
    """Refuse documents that differ from those that were prepared."""
    for what in ("documents", "bytes"):
        if written[what] != prepared[what]:
            raise DataError(
                f"{data / split}.jsonl has {written[what]:,} {what}, but {data / 'index.json'} "
                f"says {prepared[what]:,}; prepare the folder again"
            )


def _save(path: Path, values: NDArray[Any]) -> None:
    """Like `np.save`, whose errors do not say that the disk is full."""
    with open(path, "wb") as handle:
        np.lib.format.write_array_header_1_0(
            handle, np.lib.format.header_data_from_array_1_0(values)
        )
        handle.write(values.data)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Batches of texts, about `_BATCH_CHARS` characters each."""
    batch: list[str] = []
    chars = 0
    for text in texts:
        batch.append(text)
        chars += len(text)
        if chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _write_split(
    folder: Path,
    split: str,
    batches: Iterable[Batch],
    dtype: np.dtype[Any],
    report: Callable[[int], None],
) -> dict[str, Any]:
    """Write the files of one split; returns its entry in the index."""
    names = split_files(split)
    offsets, scored, words = array("Q", [0]), array("I"), array("I")
    size = 0
    digest = hashlib.sha256()
    with open(folder / names["tokens"], "wb") as handle:
        for batch in batches:
            handle.write(batch.tokens)
            digest.update(batch.tokens)
            for length in batch.lengths:
                offsets.append(offsets[-1] + length)
            size += sum(batch.sizes)
            scored.extend(batch.scored)
            words.extend(batch.words)
            report(sum(batch.sizes))
    _save(folder / names["offsets"], np.array(offsets, dtype="<u8"))
    _save(folder / names["bytes"], np.array(scored, dtype="<u4"))
    _save(folder / names["words"], np.array(words, dtype="<u4"))
    checksums = {names["tokens"]: digest.hexdigest()}
    files = {
        name: {
            "size": (folder / name).stat().st_size,
            "sha256": checksums.get(name) or sha256_file(folder / name),
        }
        for name in names.values()
    }
    return {
        "documents": len(words),
        "tokens": offsets[-1],
        "bytes": size,
        "words": sum(words),
        "files": files,
    }
