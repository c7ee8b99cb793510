# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The first step of preparation: clean, filter and hash records, chunk by chunk."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from openllm.data.document import SPLITS, Document
from openllm.data.prepare.dedup import SHINGLE, minhash
from openllm.data.prepare.filters import QualityConfig, clean, judge
from openllm.data.prepare.ngrams import ngrams, split_words
from openllm.data.prepare.split import title_key
from openllm.data.prepare.store import FACTS, Batch, document_id
from openllm.data.reading.records import Broken
from openllm.data.reading.sources import Record

CHUNK_BYTES = 1 << 19
"""Characters of text in a chunk; a worker holds a small multiple of it."""
_CHUNK_RECORDS = 4096


def cut(stream: Iterable[Record]) -> Iterator[list[Record]]:
    """Split records into chunks; the boundaries depend on the records alone."""
    chunk: list[Record] = []
    held = 0
    for record in stream:
        chunk.append(record)
        held += len(record.item.text) if isinstance(record.item, Document) else 0
        if held >= CHUNK_BYTES or len(chunk) >= _CHUNK_RECORDS:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def clean_chunk(chunk: Sequence[Record], quality: QualityConfig) -> Batch:
    """Process a chunk of records; runs in a worker."""
    kept: list[tuple[Record, Document, str]] = []
    dropped: list[bytes] = []
    reasons: Counter[tuple[str, str]] = Counter()

    def drop(identity: str, item: Document | Broken, reason: str, detail: str) -> None:
        reasons[item.source, reason] += 1
        dropped.append(dropped_line(identity, item.source, item.file, item.line, reason, detail))

    candidates = []
    for record in chunk:
        if isinstance(record.item, Broken):
            drop("", record.item, record.item.reason, record.item.detail)
        else:
            candidates.append((record, record.item, clean(record.item.text)))
    texts = [text for _, _, text in candidates]
    words = split_words(texts)
    verdicts = judge(texts, words, quality)
    for candidate, (reason, detail) in zip(candidates, verdicts, strict=True):
        if reason:
            drop(document_id(_digest(candidate[2].encode())), candidate[1], reason, detail)
        else:
            kept.append(candidate)
    lines, facts = _facts(kept)
    if len(kept) < len(texts):
        words = split_words([text for _, _, text in kept])
    signatures, bands = minhash(ngrams(words, SHINGLE, whole=True))
    return Batch(
        lines=lines,
        facts=facts,
        signatures=signatures,
        bands=bands,
        dropped=b"".join(dropped),
        reasons=dict(reasons),
        records=dict(Counter(record.item.source for record in chunk)),
        broken=len(chunk) - len(candidates),
        text_bytes=sum(len(text.encode()) for text in texts),
    )


def _digest(text: bytes) -> tuple[int, int]:
    """128-bit hash of a text."""
    digest = hashlib.blake2b(text, digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def _facts(kept: Sequence[tuple[Record, Document, str]]) -> tuple[bytes, np.ndarray]:
    """The JSON lines of documents, joined, and their FACTS."""
    lines: list[bytes] = []
    facts = []
    offset = 0
    for record, item, text in kept:
        encoded = text.encode()
        digest = _digest(encoded)
        title = clean(item.title) if item.title else ""
        lines.append(
            json_line(
                {
                    "id": document_id(digest),
                    "text": text,
                    "title": title or None,
                    "source": item.source,
                }
            )
        )
        facts.append(
            (
                digest,
                title_key(title) if title else digest[1],
                offset,
                len(lines[-1]),
                len(encoded),
                len(text.split()),
                record.file,
                item.line,
                record.source,
                bool(title),
                0 if record.split is None else 1 + SPLITS.index(record.split),
            )
        )
        offset += len(lines[-1])
    return b"".join(lines), np.array(facts, dtype=FACTS)


def json_line(record: dict[str, object]) -> bytes:
    """One line of a .jsonl file; undecodable bytes of file names are escaped."""
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def dropped_line(
    identity: str, source: str, file: str, line: int, reason: str, detail: str
) -> bytes:
    """One line of dropped.jsonl."""
    return json_line(
        {
            "id": identity,
            "source": source,
            "file": file,
            "line": line,
            "reason": reason,
            "detail": detail[:300],
        }
    )
