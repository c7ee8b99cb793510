# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""One reader for each file format: a byte stream in, documents and broken records out.

A new format is a function `(stream, place, options) -> Iterator[Document | Broken]` and one line of
`FORMATS`. Readers never drop a record silently: what cannot be read becomes a `Broken`.
"""

import csv
import io
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from openllm.core.errors import DataError
from openllm.core.plugins import require
from openllm.data.document import Document
from openllm.data.streams import DAMAGE, Count, open_stream

MAX_DOCUMENT_BYTES = 32 << 20
"""A larger document (a line, a passage, a whole text file) counts as broken, so that memory stays
bounded."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A record that could not be read: where it stands and why."""

    source: str
    file: str
    line: int
    reason: str
    detail: str


@dataclass(frozen=True)
class ReadOptions:
    """How records become documents.

    Attributes:
        text_key: field of the text in jsonl, csv, tsv and parquet.
        title_keys: fields of the title; the first that is there and not empty counts.
        split_paragraphs: each passage between blank lines of a text file is a document.
    """

    text_key: str = "text"
    title_keys: tuple[str, ...] = ("title",)
    split_paragraphs: bool = False


@dataclass
class Place:
    """Where a reader stands; it advances `line` as it goes."""

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
Reader = Callable[[BinaryIO, Place, ReadOptions], Records]


def read_file(
    path: str, file_format: str, compression: str, place: Place, options: ReadOptions, count: Count
) -> Records:
    """Stream the records of one file.

    Args:
        path: the file, or `-` for standard input.
        file_format: a key of `FORMATS`.
        compression: "", ".gz" or ".zst".
        place: names the source and the file in documents and broken records.
        options: which fields to read.
        count: is told of bytes read; see `open_stream`.

    Raises:
        DataError: the file cannot be opened.
    """
    try:
        stream = open_stream(path, compression, count)
    except OSError as error:
        raise DataError(
            f"{path} cannot be opened ({error.strerror}); check the path and its permissions"
        ) from None
    with stream:
        try:
            yield from FORMATS[file_format](stream, place, options)
        except DAMAGE as error:
            yield place.broken("damaged-file", f"{error or type(error).__name__}; rest not read")


def _lines(stream: BinaryIO, place: Place) -> Iterator[bytes | Broken]:
    """The lines of a stream, `place.line` keeping count; over-long ones come as `Broken`."""
    while line := stream.readline(MAX_DOCUMENT_BYTES + 1):
        place.line += 1
        if len(line) > MAX_DOCUMENT_BYTES:
            yield _too_large(place)
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_DOCUMENT_BYTES)
            continue
        yield line


def _too_large(place: Place) -> Broken:
    return place.broken("too-large", f"more than {MAX_DOCUMENT_BYTES >> 20} MB in one document")


def _decode(data: bytes, place: Place) -> str | Broken:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return place.broken("bad-utf8", f"byte {error.start}: {error.reason}; save it as UTF-8")


def _from_fields(fields: dict[Any, Any], place: Place, options: ReadOptions) -> Document | Broken:
    """A document from the fields of a record."""
    text = fields.get(options.text_key)
    if not isinstance(text, str):
        names = ", ".join(str(name) for name in list(fields)[:8])
        return place.broken("no-text", f"no text under '{options.text_key}' (fields: {names})")
    titles = (fields.get(key) for key in options.title_keys)
    return place.document(text, next((t for t in titles if isinstance(t, str) and t), None))


def _read_whole(stream: BinaryIO, place: Place) -> bytes | Broken:
    data = stream.read(MAX_DOCUMENT_BYTES + 1)
    return data if len(data) <= MAX_DOCUMENT_BYTES else _too_large(place)


def read_text(stream: BinaryIO, place: Place, options: ReadOptions) -> Records:
    """Plain text: the whole file, or each passage between blank lines."""
    if options.split_paragraphs:
        yield from _read_passages(stream, place)
        return
    data = _read_whole(stream, place)
    text = data if isinstance(data, Broken) else _decode(data, place)
    yield text if isinstance(text, Broken) else place.document(text)


def _read_passages(stream: BinaryIO, place: Place) -> Records:
    passage: list[bytes] = []
    begin = size = 0

    def finish() -> Document | Broken:
        here = Place(place.source, place.file, begin)
        text = _too_large(here) if size > MAX_DOCUMENT_BYTES else _decode(b"".join(passage), here)
        return text if isinstance(text, Broken) else here.document(text)

    for line in _lines(stream, place):
        if isinstance(line, Broken):
            yield line
        elif line.strip():
            begin = begin or place.line
            size += len(line)
            if size <= MAX_DOCUMENT_BYTES:
                passage.append(line)
        elif begin:
            yield finish()
            passage, begin, size = [], 0, 0
    if begin:
        yield finish()


_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n.*?\r?\n---[ \t]*\r?\n", re.DOTALL)


def read_markdown(stream: BinaryIO, place: Place, options: ReadOptions) -> Records:
    """Markdown: the whole file with its markup, without YAML front matter."""
    for record in read_text(stream, place, options):
        if isinstance(record, Document):
            yield place.document(_FRONT_MATTER.sub("", record.text))
        else:
            yield record


def read_html(stream: BinaryIO, place: Place, options: ReadOptions) -> Records:
    """HTML: the main text of the page, without navigation, scripts and footers.

    Raises:
        MissingExtra: trafilatura is not installed.
    """
    trafilatura = require("trafilatura")
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    data = _read_whole(stream, place)
    if isinstance(data, Broken):
        yield data
        return
    text = trafilatura.extract(data, include_comments=False)
    yield place.document(text) if text else place.broken("no-text", "no main text in the page")


def read_jsonl(stream: BinaryIO, place: Place, options: ReadOptions) -> Records:
    """One JSON object a line."""
    for line in _lines(stream, place):
        if isinstance(line, Broken):
            yield line
            continue
        text = _decode(line, place)
        if isinstance(text, Broken):
            yield text
        elif text.strip():
            yield _json_record(text, place, options)


def _json_record(text: str, place: Place, options: ReadOptions) -> Document | Broken:
    try:
        fields = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        return place.broken("bad-json", str(error))
    if not isinstance(fields, dict):
        return place.broken("bad-json", f"a JSON object is needed, not {type(fields).__name__}")
    return _from_fields(fields, place, options)


def read_csv(stream: BinaryIO, place: Place, options: ReadOptions) -> Records:
    """Comma-separated values with a header line."""
    return _read_table(stream, place, options, ",")


def read_tsv(stream: BinaryIO, place: Place, options: ReadOptions) -> Records:
    """Tab-separated values with a header line."""
    return _read_table(stream, place, options, "\t")


def _read_table(stream: BinaryIO, place: Place, options: ReadOptions, delimiter: str) -> Records:
    csv.field_size_limit(MAX_DOCUMENT_BYTES)
    # Undecodable bytes become surrogates, so that one bad row does not end the file.
    lines = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(lines, delimiter=delimiter)
    header = next(rows, [])
    place.line = 1
    if header and options.text_key not in header:
        names = ", ".join(header[:8])
        yield place.broken("no-text", f"no column '{options.text_key}' (columns: {names})")
        return
    while True:
        place.line = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield place.broken("bad-row", str(error))
            continue
        if row is None:
            return
        if len(row) != len(header):
            if row:
                yield place.broken("bad-row", f"{len(row)} fields, the header has {len(header)}")
            continue
        record = _from_fields(dict(zip(header, row, strict=True)), place, options)
        if isinstance(record, Document) and not _encodable(record):
            record = place.broken("bad-utf8", "bytes that are not UTF-8; save it as UTF-8")
        yield record


def _encodable(document: Document) -> bool:
    try:
        (document.text + (document.title or "")).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_parquet(stream: BinaryIO, place: Place, options: ReadOptions) -> Records:
    """Parquet, one row group after the other.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    arrow = require("pyarrow")
    parquet = require("pyarrow.parquet")
    with tempfile.TemporaryFile() as unpacked:
        if isinstance(stream, io.BufferedReader) and stream.seekable():
            file: Any = stream
        else:  # the footer at the end is read first
            shutil.copyfileobj(stream, unpacked, 1 << 20)
            file = unpacked
        try:
            table = parquet.ParquetFile(file)
            names = table.schema_arrow.names
            if options.text_key not in names:
                detail = f"no column '{options.text_key}' (columns: {', '.join(names[:8])})"
                yield place.broken("no-text", detail)
                return
            wanted = [key for key in (options.text_key, *options.title_keys) if key in names]
            for batch in table.iter_batches(256, columns=wanted):
                yield from _parquet_rows(batch, place, options)
        except arrow.ArrowException as error:
            yield place.broken("damaged-file", f"{error}; rest not read")


def _parquet_rows(batch: Any, place: Place, options: ReadOptions) -> Records:
    for i in range(batch.num_rows):
        place.line += 1
        try:
            fields = {name: batch.column(name)[i].as_py() for name in batch.schema.names}
        except UnicodeDecodeError as error:
            yield place.broken("bad-utf8", error.reason)
            continue
        yield _from_fields(fields, place, options)


_ARTICLES = re.compile(r'"data"\s*:\s*\[\s*')
_BETWEEN = re.compile(r"\s*,?\s*")


def read_squad(stream: BinaryIO, place: Place, options: ReadOptions) -> Records:
    """SQuAD's JSON schema: each `context` is a document, `line` counts them through the file.

    Articles are parsed one by one; only one of them and its text is in memory.
    """
    lines = io.TextIOWrapper(stream, "utf-8", errors="surrogateescape")
    text = ""
    while not (found := _ARTICLES.search(text)):
        more = lines.read(1 << 20)
        if not more or len(text) > MAX_DOCUMENT_BYTES:
            detail = 'no list under "data"; other JSON is read as .jsonl, one object a line'
            yield place.broken("not-squad-schema", detail)
            return
        text += more
    text = text[found.end() :]
    decoder = json.JSONDecoder()
    while True:
        text = text[_BETWEEN.match(text).end() :]  # type: ignore[union-attr]
        if text.startswith("]"):
            return
        try:
            article, end = decoder.raw_decode(text)
        except json.JSONDecodeError as error:
            more = lines.read(max(1 << 20, len(text)))
            if not more:
                yield place.broken("bad-json", f"after passage {place.line}: {error.msg}")
                return
            text += more
            continue
        text = text[end:]
        yield from _squad_passages(article, place)


def _squad_passages(article: Any, place: Place) -> Records:
    paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
    if not isinstance(paragraphs, list):
        place.line += 1
        yield place.broken("not-squad-schema", 'an article without a list under "paragraphs"')
        return
    title = article.get("title")
    for paragraph in paragraphs:
        place.line += 1
        context = paragraph.get("context") if isinstance(paragraph, dict) else None
        if not isinstance(context, str):
            yield place.broken("no-text", 'a paragraph without text under "context"')
            continue
        document = place.document(context, title if isinstance(title, str) and title else None)
        if _encodable(document):
            yield document
        else:
            yield place.broken("bad-utf8", "bytes that are not UTF-8; save it as UTF-8")


FORMATS: dict[str, Reader] = {
    ".txt": read_text,
    ".text": read_text,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
    ".json": read_squad,
}
"""Suffix of a file, without .gz or .zst -> its reader."""
