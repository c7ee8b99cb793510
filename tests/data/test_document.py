# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import pytest

from openllm.core.errors import DataError
from openllm.core.files import write_json
from openllm.data.document import Document, read_documents, read_index

INDEX = {"kind": "documents", "splits": {}}


def test_documents_are_read_in_order(tmp_path):
    write_json(tmp_path / "index.json", INDEX)
    (tmp_path / "test.jsonl").write_text(
        '{"id": "1", "text": "a\\nb", "title": null, "source": "s"}\n'
        '{"id": "2", "text": "é", "title": "T", "source": "s"}\n'
    )
    assert list(read_documents(tmp_path, "test")) == [
        Document("1", "a\nb", None, "s"),
        Document("2", "é", "T", "s"),
    ]


def test_damage_is_named(tmp_path):
    write_json(tmp_path / "index.json", INDEX)
    for line in ("{", '{"id": "1"}', "[]", "\xff"):
        (tmp_path / "train.jsonl").write_text(f"{line}\n", encoding="latin-1")
        with pytest.raises(DataError, match=r"train\.jsonl:1 is damaged"):
            list(read_documents(tmp_path, "train"))
    with pytest.raises(DataError, match=r"test\.jsonl cannot be read"):
        list(read_documents(tmp_path, "test"))


def test_wrong_folder_or_split(tmp_path):
    with pytest.raises(DataError, match="openllm data prepare"):
        read_index(tmp_path)
    write_json(tmp_path / "index.json", {"kind": "shards"})
    with pytest.raises(DataError, match="not the index of prepared documents"):
        read_index(tmp_path)
    write_json(tmp_path / "index.json", INDEX)
    with pytest.raises(DataError, match="train, validation, test"):
        list(read_documents(tmp_path, "dev"))
