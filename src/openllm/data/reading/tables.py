# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Readers of tables: comma- and tab-separated values, and Parquet."""

import csv
import io
import shutil
import tempfile
from typing import Any, BinaryIO

from openllm.core.files import storage_errors
from openllm.core.plugins import require
from openllm.data.document import Document
from openllm.data.reading.records import (
    MAX_DOCUMENT_BYTES,
    Place,
    ReadOptions,
    Records,
    encodable,
    from_fields,
)


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
    # strict: an unclosed quote must not swallow all rows that follow
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    place.line = 1
    try:
        header = next(rows, [])
    except csv.Error as error:
        yield place.broken("bad-row", f"{error}; rest not read")
        return
    if header and options.text_key not in header:
        names = ", ".join(header[:8])
        yield place.broken("no-text", f"no column '{options.text_key}' (columns: {names})")
        return
    while True:
        place.line = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            to = f"to line {rows.line_num}, " if rows.line_num > place.line else ""
            yield place.broken("bad-row", f"{to}{error}; quotes inside a field must be doubled")
            continue
        if row is None:
            return
        if len(row) != len(header):
            if row:
                yield place.broken("bad-row", f"{len(row)} fields, header has {len(header)}")
            continue
        record = from_fields(dict(zip(header, row, strict=True)), place, options)
        if isinstance(record, Document) and not encodable(record):
            record = place.broken("bad-utf8", "not valid UTF-8; save it as UTF-8")
        yield record


def read_parquet(stream: BinaryIO, place: Place, options: ReadOptions) -> Records:
    """Parquet, one row group at a time.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    arrow = require("pyarrow")
    parquet = require("pyarrow.parquet")
    with tempfile.TemporaryFile() as unpacked:
        if isinstance(stream, io.BufferedReader) and stream.seekable():
            file: Any = stream
        else:  # the footer at the end is read first
            with storage_errors(tempfile.gettempdir()):
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
            fields = {
                name: column[i].as_py()
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }
        except UnicodeDecodeError as error:
            yield place.broken("bad-utf8", error.reason)
            continue
        yield from_fields(fields, place, options)
