# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""One reader per file format: a byte stream in, documents and broken records out.

A new format is a function `(stream, place, options) -> Records` and one line of `FORMATS`. Readers
never drop a record silently: what cannot be read becomes a `Broken`.
"""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO

import yaml

from openllm.core.errors import DataError
from openllm.core.plugins import require
from openllm.data.document import Document
from openllm.data.reading.records import (
    MAX_DOCUMENT_BYTES,
    Broken,
    Place,
    ReadOptions,
    Records,
    decode,
    from_fields,
    lines,
    read_whole,
    too_large,
)
from openllm.data.reading.squad import read_squad
from openllm.data.reading.streams import DAMAGE, Count, open_stream
from openllm.data.reading.tables import read_csv, read_parquet, read_tsv

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
        count: called with the number of bytes read; see `open_stream`.

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


def read_text(stream: BinaryIO, place: Place, options: ReadOptions) -> Records:
    """Plain text: the whole file, or each passage between blank lines."""
    if options.split_paragraphs:
        yield from _read_passages(stream, place)
        return
    data = read_whole(stream, place)
    text = data if isinstance(data, Broken) else decode(data, place)
    yield text if isinstance(text, Broken) else place.document(text)


def _read_passages(stream: BinaryIO, place: Place) -> Records:
    passage: list[bytes] = []
    begin = size = 0

    def finish() -> Document | Broken:
        here = Place(place.source, place.file, begin)
        text = too_large(here) if size > MAX_DOCUMENT_BYTES else decode(b"".join(passage), here)
        return text if isinstance(text, Broken) else here.document(text)

    for line in lines(stream, place):
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


_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?\r?\n)---[ \t]*\r?\n", re.DOTALL)


def read_markdown(stream: BinaryIO, place: Place, options: ReadOptions) -> Records:
    """Markdown: the whole file with its markup, without YAML front matter."""
    for record in read_text(stream, place, options):
        if isinstance(record, Document):
            yield replace(record, text=_FRONT_MATTER.sub(_body, record.text))
        else:
            yield record


def _body(block: re.Match[str]) -> str:
    """Drop YAML front matter, but keep a chapter between two rules."""
    try:
        settings = yaml.safe_load(block[1])
    except (yaml.YAMLError, ValueError):  # ValueError: 2024-02-30 looks like a date
        return block[0]
    return "" if isinstance(settings, dict) else block[0]


def read_html(stream: BinaryIO, place: Place, options: ReadOptions) -> Records:
    """HTML: the main text of the page, without navigation, scripts and footers.

    Raises:
        MissingExtra: trafilatura is not installed.
    """
    trafilatura = require("trafilatura")
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    data = read_whole(stream, place)
    if isinstance(data, Broken):
        yield data
        return
    text = trafilatura.extract(data, include_comments=False)
    yield place.document(text) if text else place.broken("no-text", "no main text in the page")


def read_jsonl(stream: BinaryIO, place: Place, options: ReadOptions) -> Records:
    """One JSON object per line."""
    for line in lines(stream, place):
        if isinstance(line, Broken):
            yield line
            continue
        text = decode(line, place)
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
        return place.broken("bad-json", f"expected a JSON object, got {type(fields).__name__}")
    return from_fields(fields, place, options)


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

ONE_DOCUMENT = (".txt", ".text", ".md", ".markdown", ".html", ".htm")
"""Formats whose files usually are one document each."""
