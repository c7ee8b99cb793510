# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""SQuAD: the reader of its JSON schema, and the official files."""

import io
import json
import re
from typing import Any, BinaryIO

from openllm.data.reading.records import MAX_DOCUMENT_BYTES, Place, ReadOptions, Records, encodable

OFFICIAL_URL = "https://rajpurkar.github.io/SQuAD-explorer/dataset/"
LICENCE = "CC BY-SA 4.0"
# The checksums of all four files agree in three public places: TensorFlow Datasets
# (tensorflow_datasets/datasets/squad/checksums.tsv), Hugging Face datasets
# (datasets/squad/dataset_infos.json and datasets/squad_v2/dataset_infos.json, with these sizes) and
# ParlAI (parlai/tasks/squad/build.py and parlai/tasks/squad2/build.py).
OFFICIAL_FILES = {
    "train-v1.1.json": (
        30_288_272,
        "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955",
    ),
    "dev-v1.1.json": (
        4_854_279,
        "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9",
    ),
    "train-v2.0.json": (
        42_123_633,
        "68dcfbb971bd3e96d5b46c7177b16c1a4e7d4bdef19fb204502738552dede002",
    ),
    "dev-v2.0.json": (
        4_370_528,
        "80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8",
    ),
}
"""Official file -> its size in bytes and SHA-256."""

_ARTICLES = re.compile(r'"data"\s*:\s*\[\s*')
_BETWEEN = re.compile(r"\s*,?\s*")


def read_squad(stream: BinaryIO, place: Place, options: ReadOptions) -> Records:
    """SQuAD's JSON schema: each `context` is a document; `line` counts them through the file.

    Articles are parsed one by one; only one and its text is in memory.
    """
    lines = io.TextIOWrapper(stream, "utf-8", errors="surrogateescape")
    text = ""
    while not (found := _ARTICLES.search(text)):
        more = lines.read(1 << 20)
        if not more or len(text) > MAX_DOCUMENT_BYTES:
            detail = 'no list under "data"; other JSON must be .jsonl, one object per line'
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
        except RecursionError:
            yield place.broken("bad-json", f"after passage {place.line}: nested too deeply")
            return
        except json.JSONDecodeError as error:
            more = lines.read(max(1 << 20, len(text)))
            if not more or len(text) > MAX_DOCUMENT_BYTES:
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
        if encodable(document):
            yield document
        else:
            yield place.broken("bad-utf8", "not valid UTF-8; save it as UTF-8")
