# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""One document, and reading the folder that `openllm data prepare` writes.

DIR/train.jsonl  validation.jsonl  test.jsonl    {"id", "text", "title", "source"} per line
DIR/dropped.jsonl                                what was left out, from where, and why
DIR/index.json                                   sources, counts, checksums, fingerprint
DIR/report.json  report.md                       what each step did, and the leak report
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openllm.core.errors import DataError
from openllm.core.files import read_json, recover_folder

SPLITS = ("train", "validation", "test")
"""The splits of a prepared folder, in the order of their files."""

_MEND = "give a folder written by 'openllm data prepare SOURCE... --out DIR'"


@dataclass(frozen=True, slots=True)
class Document:
    """One text and where it comes from.

    Attributes:
        id: identifies the document within its corpus.
        text: the text, without markup.
        title: the article the text is part of; documents with one title stay in one split.
        source: the data set or file the text comes from.
        file: path of the file it was read from; empty after preparation.
        line: line or record in that file, counted from 1; 0 if the file is one document.
    """

    id: str
    text: str
    title: str | None = None
    source: str = ""
    file: str = ""
    line: int = 0


def read_documents(folder: Path | str, split: str) -> Iterator[Document]:
    """Stream the documents of one split of a prepared folder.

    Raises:
        DataError: no prepared folder, no such split, or a damaged line.
    """
    folder = Path(folder)
    if split not in SPLITS:
        raise DataError(f"there is no split '{split}'; choose one of {', '.join(SPLITS)}")
    read_index(folder)
    return _parse(folder / f"{split}.jsonl")


def _parse(path: Path) -> Iterator[Document]:
    try:
        with open(path, "rb") as handle:
            for number, line in enumerate(handle, start=1):
                yield _document(line, path, number)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {_MEND}") from None


def _document(line: bytes, path: Path, number: int) -> Document:
    try:
        record = json.loads(line)
        return Document(record["id"], record["text"], record["title"], record["source"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}:{number} is damaged ({error!r}); prepare the folder again"
        ) from None


def read_index(folder: Path | str) -> dict[str, Any]:
    """The `index.json` of a prepared folder.

    Raises:
        DataError: it is missing, broken, too new, or not the index of a prepared folder.
    """
    recover_folder(folder)
    path = Path(folder) / "index.json"
    index = read_json(path, DataError, _MEND)
    if index.get("kind") != "documents" or not isinstance(index.get("splits"), dict):
        raise DataError(f"{path} is not the index of prepared documents; {_MEND}")
    return index
