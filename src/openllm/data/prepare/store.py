# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Cleaned documents on disk while a corpus is being prepared: text, facts, signatures, bands.

What a step needs of all documents at once is a column of `FACTS` or a file of its own; texts stay
on disk and are read back by their offset.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openllm.data.prepare.dedup import BANDS, MINIMA

FACTS = np.dtype(
    [
        ("hash", "<u8", 2),  # of the text
        ("group", "<u8"),  # hash of the title, or of the text if there is none
        ("offset", "<u8"),  # of the JSON line in documents.jsonl
        ("length", "<u4"),  # of the JSON line
        ("bytes", "<u4"),  # of the text as UTF-8
        ("words", "<u4"),  # between white space
        ("file", "<u4"),  # index into the list of files
        ("line", "<u8"),
        ("source", "<u2"),  # index of the SOURCE argument
        ("titled", "?"),
        ("given", "u1"),  # 0, or 1 + the split stated by the source
    ]
)
DISK_BYTES = FACTS.itemsize + MINIMA + 8 * BANDS
"""Bytes on disk per document besides its text, while the corpus is being prepared."""
MEMORY_BYTES = 200
"""Peak bytes in memory per document, reached while duplicates and splits are decided."""


@dataclass(frozen=True)
class Batch:
    """The outcome of one chunk of records.

    Attributes:
        lines: JSON lines of the kept documents.
        facts: FACTS [D]; offsets count from the start of `lines`.
        signatures: uint8 [D, MINIMA].
        bands: uint64 [BANDS, D].
        dropped: JSON lines of dropped documents and broken records.
        reasons: how often each (source name, reason) occurs among `dropped`.
        records: number of records read, by source name.
        broken: number of records that could not be read.
        text_bytes: bytes of cleaned text, before anything is dropped.
    """

    lines: bytes
    facts: np.ndarray
    signatures: np.ndarray
    bands: np.ndarray
    dropped: bytes
    reasons: dict[tuple[str, str], int]
    records: dict[str, int]
    broken: int
    text_bytes: int


class StoreWriter:
    """Appends batches to the files of a store."""

    def __init__(self, folder: Path) -> None:
        self._open = contextlib.ExitStack()

        def create(name: str) -> Any:
            return self._open.enter_context(open(folder / name, "wb"))

        self._texts, self._facts = create("documents.jsonl"), create("facts.bin")
        self._signatures = create("signatures.u8")
        self._bands = [create(f"band-{band:02d}.u64") for band in range(BANDS)]
        self._offset = 0

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def append(self, batch: Batch) -> None:
        """Append one batch."""
        facts = batch.facts.copy()
        facts["offset"] += np.uint64(self._offset)
        self._offset += len(batch.lines)
        self._texts.write(batch.lines)
        self._facts.write(facts.tobytes())
        self._signatures.write(batch.signatures.tobytes())
        for handle, values in zip(self._bands, batch.bands, strict=True):
            handle.write(values.tobytes())


class Store:
    """Reads the files of a finished store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = np.fromfile(folder / "facts.bin", dtype=FACTS)
        self._texts = open(folder / "documents.jsonl", "rb")  # noqa: SIM115

    def __len__(self) -> int:
        return len(self.facts)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *error: object) -> None:
        self._texts.close()

    def line(self, index: int) -> bytes:
        """The JSON line of a document."""
        fact = self.facts[index]
        self._texts.seek(int(fact["offset"]))
        return self._texts.read(int(fact["length"]))

    def text(self, index: int) -> str:
        """The text of a document."""
        return json.loads(self.line(index))["text"]

    def id(self, index: int) -> str:
        """The id of a document."""
        return document_id(self.facts["hash"][index])

    def lines(self) -> Iterator[bytes]:
        """All JSON lines in order."""
        with open(self.folder / "documents.jsonl", "rb") as handle:
            yield from handle

    def batches(self, wanted: np.ndarray, size: int) -> Iterator[tuple[list[int], list[bytes]]]:
        """Numbers and JSON lines of wanted documents (bool [N]), about `size` bytes at a time."""
        numbers: list[int] = []
        lines: list[bytes] = []
        held = 0
        for number, line in enumerate(self.lines()):
            if wanted[number]:
                numbers.append(number)
                lines.append(line)
                held += len(line)
                if held >= size:
                    yield numbers, lines
                    numbers, lines, held = [], [], 0
        if lines:
            yield numbers, lines


def document_id(digest: Sequence[int] | np.ndarray) -> str:
    """Sixteen hexadecimal digits of the hash of a text."""
    return f"{int(digest[0]):016x}"
