# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import pytest

from openllm.core.errors import DataError, DownloadError, UsageError
from openllm.data.reading import sources, squad
from openllm.data.reading.records import ReadOptions
from openllm.data.reading.sources import (
    classify,
    file_names,
    gather,
    open_builtin,
    open_source,
    open_squad,
    records,
)


@pytest.fixture
def tree(tmp_path):
    for name in ("b.txt", "a.jsonl.gz", "sub/c.MD.zst", "sub/.hidden.txt", ".git/d.txt", "e.png"):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "corpus"


def test_suffixes():
    assert classify("x/a.b.jsonl.gz") == ("a.b", ".jsonl", ".gz")
    assert classify("A.TXT.ZST") == ("A", ".txt", ".zst")
    assert classify("a.gz") is None
    assert classify("a") is None


def test_a_folder_is_read_in_order_without_hidden_files(tree):
    source = open_source(str(tree))
    assert [file.name for file in source.files] == ["corpus/a", "corpus", "corpus/sub"]
    assert [file.format for file in source.files] == [".jsonl", ".txt", ".md"]
    assert [path.rpartition("/")[2] for path in source.skipped] == ["e.png"]
    assert source.name == source.corpus.replace("user", "corpus") == "corpus"


def test_links_are_followed_once_and_what_is_no_file_is_named(tree, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "f.txt").write_bytes(b"x")
    (tmp_path / "more" / "round").symlink_to(tree)
    (tree / "link").symlink_to(tmp_path / "more")
    (tree / "lost.txt").symlink_to(tmp_path / "absent")
    source = open_source(str(tree))
    assert sorted(file.name for file in source.files) == [
        "corpus",
        "corpus/a",
        "corpus/link",
        "corpus/sub",
    ]
    assert [path.rpartition("/")[2] for path in source.skipped] == ["e.png", "lost.txt"]


def test_a_pattern_takes_folders_that_match_whole(tree):
    source = open_source(f"{tree.parent}/corp*")
    assert [file.name for file in source.files] == ["corpus/a", "corpus", "corpus/sub"]
    assert len(source.skipped) == 1


def test_a_pattern_and_a_file(tree):
    source = open_source(f"{tree}/**/*.txt")
    assert [file.name for file in source.files] == ["corpus"]
    assert open_source(str(tree / "b.txt")).name == "b"


def test_standard_input_has_the_format_that_is_said():
    assert open_source("-").files[0].format == ".txt"
    assert open_source("-", "jsonl").files[0].format == ".jsonl"
    with pytest.raises(UsageError, match="--stdin-format"):
        open_source("-", "docx")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("{tree}/absent.txt", "no file, folder or match"),
        ("{tree}/*.csv", "no file, folder or match"),
        ("{tree}/e.png", r"unknown file type; supported: \.txt"),
        ("{tree}/.git", "no files of a known type"),
        ("https://example.org/a.zip", "unknown file type"),
    ],
)
def test_what_cannot_be_a_source_says_why(tree, argument, message):
    (tree / ".git" / "d.txt").unlink()
    with pytest.raises(DataError, match=message):
        open_source(argument.format(tree=tree))


def test_a_url_is_downloaded_into_the_cache(tmp_path, monkeypatch):
    seen = []

    def fetch(url, folder, **options):
        seen.append((url, folder))
        (tmp_path / "a.jsonl").write_text('{"text": "x"}')
        return tmp_path / "a.jsonl"

    monkeypatch.setattr(sources, "download", fetch)
    monkeypatch.setenv("OPENLLM_CACHE", str(tmp_path / "cache"))
    assert open_source("https://example.org/d/a.jsonl?x=1").name == "example.org/a"
    open_source("https://example.org/other/a.jsonl")
    assert [url.rpartition("/")[2] for url, _ in seen] == ["a.jsonl?x=1", "a.jsonl"]
    folders = [folder for _, folder in seen]
    assert all(folder.parent == tmp_path / "cache" / "downloads" for folder in folders)
    assert folders[0] != folders[1], "files of one name from two places do not meet"


def test_files_named_one_by_one_become_one_source(tree):
    named = [open_source(str(tree / name)) for name in ("b.txt", "a.jsonl.gz")]
    [merged] = gather([*named, open_source("-")])
    assert [file.name for file in merged.files] == ["corpus", "a", "stdin"]
    folder = open_source(str(tree))
    assert gather([named[0], folder]) == [named[0], folder]


def test_squad_fetches_four_checked_files(tmp_path, monkeypatch):
    asked = {}

    def fetch(url, folder, *, size, sha256):
        asked[url] = (size, sha256)
        path = tmp_path / url.rpartition("/")[2]
        path.write_text('{"data": []}')
        return path

    monkeypatch.setattr(sources, "download", fetch)
    source = open_squad([])
    assert [file.name for file in source.files] == [
        "squad/train-v1.1",
        "squad/dev-v1.1",
        "squad/train-v2.0",
        "squad/dev-v2.0",
    ]
    assert {len(sha256) for _, sha256 in asked.values()} == {64}
    assert all(url.startswith("https://rajpurkar.github.io/SQuAD-explorer/") for url in asked)
    assert len(asked) == len(squad.OFFICIAL_FILES) == 4


def test_squad_without_network_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENLLM_CACHE", str(tmp_path))
    monkeypatch.setattr(squad, "OFFICIAL_URL", "ftp://nowhere/")
    with pytest.raises(DownloadError, match="ftp://nowhere/train"):
        open_squad([])


def test_squad_from_a_place_of_ones_own(tree):
    with pytest.raises(DataError, match="SQuAD's JSON schema"):
        open_squad([str(tree / "a.jsonl.gz")])
    source = open_squad([str(tree)])
    assert [file.name for file in source.files] == ["squad/b"] and source.split_paragraphs


def test_builtin_says_the_split_and_numbers_its_kinds():
    source = open_builtin(40, seed=1)
    found = list(records([source], ReadOptions(), [].append))
    assert [record.split for record in found] == ["train"] * 40 + ["validation"] * 2 + ["test"] * 2
    names = file_names([source])
    assert all(names[record.file][0] == record.item.source for record in found)
    assert found[0].item != found[1].item
