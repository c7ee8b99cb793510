# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What readers yield (documents and broken records), and helpers that they share."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from openllm.data.document import Document

MAX_DOCUMENT_BYTES = 32 << 20
"""A larger document (a line, a passage, a whole text file) counts as broken, so that memory stays
bounded."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A record that could not be read: where it is and why."""

    source: str
    file: str
    line: int
    reason: str
    detail: str


@dataclass(frozen=True)
class ReadOptions:
    """How records become documents.

    Attributes:
        text_key: text field in jsonl, csv, tsv and parquet.
        title_keys: title fields; the first that is there and not empty counts.
        split_paragraphs: each passage between blank lines of a text file is a document.
    """

    text_key: str = "text"
    title_keys: tuple[str, ...] = ("title",)
    split_paragraphs: bool = False


@dataclass
class Place:
    """A reader's position; the reader advances `line`."""

    source: str
    file: str
    line: int = 0

    def document(self, text: str, title: str | None = None) -> Document:
        """A document that begins here."""
        return Document("", text, title, self.source, self.file, self.line)

    def broken(self, reason: str, detail: str) -> Broken:
        """A broken record that begins here."""
        return Broken(self.source, self.file, self.line, reason, detail)


Records = Iterator[Document | Broken]


def lines(stream: BinaryIO, place: Place) -> Iterator[bytes | Broken]:
    """The lines of a stream, counted in `place.line`; over-long ones become `Broken`."""
    while line := stream.readline(MAX_DOCUMENT_BYTES + 1):
        place.line += 1
        if len(line) > MAX_DOCUMENT_BYTES:
            yield too_large(place)
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_DOCUMENT_BYTES)
            continue
        yield line


def too_large(place: Place) -> Broken:
    """The `Broken` for an over-long record."""
    return place.broken("too-large", f"more than {MAX_DOCUMENT_BYTES >> 20} MB in one document")


def decode(data: bytes, place: Place) -> str | Broken:
    """Decode UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return place.broken("bad-utf8", f"byte {error.start}: {error.reason}; save it as UTF-8")


def from_fields(fields: dict[Any, Any], place: Place, options: ReadOptions) -> Document | Broken:
    """A document from the fields of a record."""
    text = fields.get(options.text_key)
    if not isinstance(text, str):
        names = ", ".join(str(name) for name in list(fields)[:8])
        return place.broken("no-text", f"no text under '{options.text_key}' (fields: {names})")
    titles = (fields.get(key) for key in options.title_keys)
    return place.document(text, next((t for t in titles if isinstance(t, str) and t), None))


def read_whole(stream: BinaryIO, place: Place) -> bytes | Broken:
    """Read a whole file as one document."""
    data = stream.read(MAX_DOCUMENT_BYTES + 1)
    return data if len(data) <= MAX_DOCUMENT_BYTES else too_large(place)


def encodable(document: Document) -> bool:
    """Whether a document read with surrogate escapes was valid UTF-8."""
    try:
        (document.text + (document.title or "")).encode()
    except UnicodeEncodeError:
        return False
    return True
