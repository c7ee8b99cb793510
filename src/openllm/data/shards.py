# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Token shards: the documents of a prepared folder as ids, memory-mapped.

DIR/SPLIT.bin           all documents end to end, each bos + text + eos; uint16, or uint32;
                        without bos if the tokenizer adds none
DIR/SPLIT.offsets.npy   uint64, documents + 1: where each begins, in tokens
DIR/SPLIT.bytes.npy     uint32: UTF-8 bytes of each text (without bos: but for the first token)
DIR/SPLIT.words.npy     uint32: words of the same, separated by white space
DIR/index.json          counts, checksums, fingerprints of the tokenizer and of the documents
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openllm.core.errors import DataError, TokenizerError
from openllm.core.files import read_json, recover_folder, sha256_file

INDEX = "index.json"
_MEND = "recreate the shards with: openllm data tokenize DATA --tokenizer DIR --out DIR"


def split_files(split: str) -> dict[str, str]:
    """The files of a split, by content."""
    return {
        "tokens": f"{split}.bin",
        "offsets": f"{split}.offsets.npy",
        "bytes": f"{split}.bytes.npy",
        "words": f"{split}.words.npy",
    }


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest little-endian type that holds every id."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


@dataclass(frozen=True)
class Shards:
    """The token ids of one split.

    Attributes:
        folder, split: where they are.
        tokens: (num_tokens,) all documents end to end, memory-mapped.
        offsets: (num_documents + 1,) uint64; document i is `tokens[offsets[i]:offsets[i + 1]]`.
        doc_bytes: (num_documents,) uint32, UTF-8 bytes of each text that a model predicts.
        doc_words: (num_documents,) uint32, words of the same.
    """

    folder: Path
    split: str
    tokens: NDArray[np.unsignedinteger[Any]]
    offsets: NDArray[np.uint64]
    doc_bytes: NDArray[np.uint32]
    doc_words: NDArray[np.uint32]

    @classmethod
    def open(cls, folder: Path | str, split: str, tokenizer_fingerprint: str) -> "Shards":
        """Memory-map one split.

        Args:
            folder: a shard folder.
            split: such as "train".
            tokenizer_fingerprint: of the tokenizer that the ids will be used with.

        Raises:
            DataError: no shard folder, no such split, or a file of the wrong size.
            TokenizerError: the shards were made with another tokenizer.
        """
        folder = Path(folder)
        index = read_shard_index(folder)
        made_with = index["tokenizer_fingerprint"]
        if made_with != tokenizer_fingerprint:
            raise TokenizerError(
                f"{folder} was made with tokenizer {str(made_with)[:12]}, not with "
                f"{tokenizer_fingerprint[:12]}; use that tokenizer, or tokenise the documents "
                "again: openllm data tokenize DATA --tokenizer DIR --out NEW_DIR"
            )
        if split not in index["splits"]:
            raise DataError(f"{folder} has no split '{split}'; it has {', '.join(index['splits'])}")
        facts = index["splits"][split]
        for name, stated in facts["files"].items():
            _check_size(folder / name, stated["size"])
        names = split_files(split)
        path = folder / names["tokens"]
        if facts["tokens"]:
            tokens = np.memmap(path, dtype=index["dtype"], mode="r")
        else:
            tokens = np.zeros(0, dtype=index["dtype"])  # an empty file cannot be mapped
        offsets, doc_bytes, doc_words = (
            _load_array(folder / names[name]) for name in ("offsets", "bytes", "words")
        )
        if len(offsets) != facts["documents"] + 1 or int(offsets[-1]) != len(tokens):
            raise DataError(f"{path} does not match its offsets; {_MEND}")
        return cls(folder, split, tokens, offsets, doc_bytes, doc_words)

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return len(self.offsets) - 1

    def document(self, index: int) -> NDArray[np.unsignedinteger[Any]]:
        """The ids of one document, bos and eos included; a view."""
        return self.tokens[int(self.offsets[index]) : int(self.offsets[index + 1])]

    def verify(self) -> None:
        """Compare every byte of this split with the checksums in the index.

        Raises:
            DataError: a file differs from what was written.
        """
        for name, stated in read_shard_index(self.folder)["splits"][self.split]["files"].items():
            if sha256_file(self.folder / name) != stated["sha256"]:
                raise DataError(f"{self.folder / name} is damaged: wrong checksum; {_MEND}")


def read_shard_index(folder: Path | str) -> dict[str, Any]:
    """The `index.json` of a shard folder.

    Raises:
        DataError: it is missing, broken, too new, or not the index of a shard folder.
    """
    folder = Path(folder)
    recover_folder(folder)
    index = read_json(folder / INDEX, DataError, _MEND)
    wanted = {"dtype", "tokenizer_fingerprint", "data_fingerprint", "splits"}
    if index.get("kind") != "shards" or not wanted <= index.keys():
        raise DataError(f"{folder / INDEX} is not the index of token shards; {_MEND}")
    return index


def _check_size(path: Path, stated: int) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {_MEND}") from None
    if size != stated:
        raise DataError(f"{path} is damaged: {size} bytes instead of {stated}; {_MEND}")


def _load_array(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode=None, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}); {_MEND}") from None
