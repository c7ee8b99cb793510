# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import gzip
import io
import json
from pathlib import Path

import pytest

from openllm.core.errors import DataError, MissingExtra
from openllm.data.document import Document
from openllm.data.reading import records
from openllm.data.reading.readers import read_file
from openllm.data.reading.records import Broken, Place, ReadOptions
from openllm.data.reading.sources import classify

pyarrow = pytest.importorskip("pyarrow")
zstandard = pytest.importorskip("zstandard")


def read(path: Path, **options) -> list[Document | Broken]:
    _, file_format, compression = classify(str(path))
    place = Place("source", str(path))
    chosen = ReadOptions(**options)
    return list(read_file(str(path), file_format, compression, place, chosen, [].append))


def shown(path: Path, **options) -> list[tuple[int, str]]:
    """Line, and text or reason."""
    found = read(path, **options)
    return [(r.line, r.text if isinstance(r, Document) else r.reason) for r in found]


def parquet(rows: list[dict], **arguments) -> bytes:
    from pyarrow import parquet as library

    buffer = io.BytesIO()
    library.write_table(pyarrow.Table.from_pylist(rows), buffer, **arguments)
    return buffer.getvalue()


SQUAD = {
    "version": "1.1",
    "data": [
        {"title": "A", "paragraphs": [{"context": "eins", "qas": []}, {"context": "zwei"}]},
        {"title": "B", "paragraphs": [{"context": "drei"}]},
    ],
}
ROWS = [{"text": "eins", "title": "A"}, {"text": "zwei", "title": "A"}, {"text": "drei"}]
FILES = {
    "a.txt": b"eins\n\nzwei",
    "a.md": b"---\ntitle: x\n---\n# eins\n",
    "a.html": b"<html><body><article><p>"
    + b"This is the main text of the page, long enough to be found. " * 5
    + b"</p></article></body></html>",
    "a.jsonl": "\n".join(json.dumps(row) for row in ROWS).encode(),
    "a.csv": b'title,text\nA,"eins, ja"\nA,"zwei\nlines"\n,drei\n',
    "a.tsv": b"title\ttext\nA\teins\nA\tzwei\n\tdrei\n",
    "a.parquet": parquet(ROWS, row_group_size=1),
    "a.json": json.dumps(SQUAD).encode(),
}
EXPECTED = {
    "a.txt": [(0, "eins\n\nzwei")],
    "a.md": [(0, "# eins\n")],
    "a.jsonl": [(1, "eins"), (2, "zwei"), (3, "drei")],
    "a.csv": [(2, "eins, ja"), (3, "zwei\nlines"), (5, "drei")],
    "a.tsv": [(2, "eins"), (3, "zwei"), (4, "drei")],
    "a.parquet": [(1, "eins"), (2, "zwei"), (3, "drei")],
    "a.json": [(1, "eins"), (2, "zwei"), (3, "drei")],
}


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", FILES)
def test_every_format_plain_and_packed(tmp_path, name, packing):
    data = FILES[name]
    if packing == ".gz":
        data = gzip.compress(data)
    elif packing == ".zst":
        data = zstandard.compress(data)
    path = tmp_path / (name + packing)
    path.write_bytes(data)
    if name == "a.html":
        [(line, text)] = shown(path)
        assert line == 0 and text.startswith("This is the main text") and "<" not in text
    else:
        assert shown(path) == EXPECTED[name]


def test_titles_come_from_the_first_field_that_has_one(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "title": "", "book": "B"}\n{"text": "b", "title": "T"}\n')
    assert [r.title for r in read(path, title_keys=("title", "book"))] == ["B", "T"]
    (tmp_path / "a.json").write_text(json.dumps(SQUAD))
    assert [r.title for r in read(tmp_path / "a.json")] == ["A", "A", "B"]


@pytest.mark.parametrize(
    ("begin", "kept"),
    [
        ("---\ntitle: x\ntags: [a]\n---\n", ""),
        ("---\ndate: 2024-02-30\n---\n", None),
        ("---\n\nChapter one.\n\n---\n", None),
    ],
)
def test_only_settings_at_the_top_of_markdown_are_left_out(tmp_path, begin, kept):
    path = tmp_path / "a.md"
    path.write_text(begin + "Chapter two.")
    assert shown(path) == [(0, (begin if kept is None else kept) + "Chapter two.")]


def test_a_quote_that_is_not_closed_does_not_swallow_rows(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('text\n"To be, or not\n' + "a row\n" * 50 + 'the "last"\n')
    [record] = read(path)
    assert isinstance(record, Broken) and (record.line, record.reason) == (2, "bad-row")
    assert "to line 53" in record.detail and "must be doubled" in record.detail


def test_passages_between_blank_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n\none\nmore\n \n\nb\xffd\n\nlast")
    assert shown(path, split_paragraphs=True) == [(3, "one\nmore\n"), (7, "bad-utf8"), (9, "last")]


def test_broken_json_lines_are_named_and_the_rest_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'{"text": "good"}\n{"text": \n\n[1]\n{"body": "x"}\n{"text": 5}\n\xff\xfe\n'
        b'{"text": "good too"}' + b"[" * 100_000 + b'\n{"text": "last"}'
    )
    assert shown(path) == [
        (1, "good"),
        (2, "bad-json"),
        (4, "bad-json"),
        (5, "no-text"),
        (6, "no-text"),
        (7, "bad-utf8"),
        (8, "bad-json"),
        (9, "last"),
    ]
    details = {r.line: r.detail for r in read(path) if isinstance(r, Broken)}
    assert "fields: body" in details[5]


def test_nesting_without_end_is_a_broken_record(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"[" * 200_000 + b'\n{"text": "last"}')
    assert shown(path) == [(1, "bad-json"), (2, "last")]


def test_broken_rows_of_tables(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,n\none,1\ntoo,many,fields\nfew\nb\xffd,2\nlast,3\n")
    assert shown(path) == [
        (2, "one"),
        (3, "bad-row"),
        (4, "bad-row"),
        (5, "bad-utf8"),
        (6, "last"),
    ]
    path.write_text("body,n\none,1\n")
    assert shown(path) == [(1, "no-text")]


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_truncated_packed_file_gives_what_it_has_and_says_so(tmp_path, packing):
    lines = b"".join(b'{"text": "document number %d %d"}\n' % (i, i * i) for i in range(20_000))
    data = gzip.compress(lines) if packing == ".gz" else zstandard.compress(lines)
    path = tmp_path / f"a.jsonl{packing}"
    path.write_bytes(data[: len(data) // 2])
    found = read(path)
    assert len(found) > 100
    assert isinstance(found[-1], Broken) and found[-1].reason == "damaged-file"
    path.write_bytes(b"not packed at all, whatever the name says")
    assert [r.reason for r in read(path)] == ["damaged-file"]


def test_several_packed_parts_in_one_file(tmp_path):
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(b"one ") + zstandard.compress(b"two"))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one ") + gzip.compress(b"two"))
    assert shown(tmp_path / "a.txt.zst") == shown(tmp_path / "a.txt.gz") == [(0, "one two")]


def test_broken_squad_files(tmp_path):
    path = tmp_path / "a.json"
    whole = json.dumps(SQUAD)
    path.write_text(whole[: whole.index("drei")])
    assert shown(path) == [(1, "eins"), (2, "zwei"), (2, "bad-json")]
    path.write_text('{"data": [{"title": "x"}, {"paragraphs": [{"contxt": "y"}]}]}')
    assert shown(path) == [(1, "not-squad-schema"), (2, "no-text")]
    path.write_text('[{"text": "x"}]')
    assert shown(path) == [(0, "not-squad-schema")]


def test_damaged_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(FILES["a.parquet"][:-30])
    assert shown(path) == [(0, "damaged-file")]
    path.write_bytes(parquet([{"body": "x"}]))
    assert shown(path) == [(0, "no-text")]
    path.write_bytes(parquet([{"text": 5}]))
    assert shown(path) == [(1, "no-text")]


def test_documents_beyond_the_size_limit_are_broken_records(tmp_path, monkeypatch):
    for module in ("records", "readers", "tables", "squad"):
        monkeypatch.setattr(f"openllm.data.reading.{module}.MAX_DOCUMENT_BYTES", 50)
    (tmp_path / "a.txt").write_bytes(b"x" * 51)
    assert shown(tmp_path / "a.txt") == [(0, "too-large")]
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "' + b"x" * 200 + b'"}\n{"text": "fine"}\n')
    assert shown(tmp_path / "b.jsonl") == [(1, "too-large"), (2, "fine")]
    (tmp_path / "c.txt").write_bytes(b"12345678\n" * 9 + b"\nfine")
    assert shown(tmp_path / "c.txt", split_paragraphs=True) == [(1, "too-large"), (11, "fine")]
    assert records.MAX_DOCUMENT_BYTES == 50


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path):
    with pytest.raises(DataError, match="cannot be opened"):
        read(tmp_path / "absent.txt")


def test_missing_library_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "a.txt.zst"
    path.write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(MissingExtra, match=r"openllm-lab\[data\]"):
        read(path)


def test_bytes_read_are_counted(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(FILES["a.jsonl"]))
    counts: list[int] = []
    options = ReadOptions()
    list(read_file(str(path), ".jsonl", ".gz", Place("s", "f"), options, counts.append))
    assert sum(counts) == path.stat().st_size
