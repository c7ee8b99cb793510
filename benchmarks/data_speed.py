# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Preparation and tokenisation of real text, ours against SentencePiece and `tokenizers`.

    make bench, or: python benchmarks/data_speed.py [--megabytes 24] [--rounds 5]

Preparation is all of `openllm data prepare`, with one process and with one per core. Then every
tokenisation route reads the same prepared folder, encodes with the same vocabulary of 32,000 and
writes the same bytes (checked) to disk: `openllm data tokenize` with one process and with one per
core, the batch call of SentencePiece with one thread per core, and `encode_batch_fast` of
`tokenizers` with one thread per core. Routes take turns, each round starts with another one, and
the median over rounds counts. Wall-clock time is what a user waits for; CPU time, over all
threads and processes, stays comparable on a shared machine.
"""

import argparse
import gzip
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import sentencepiece
import tokenizers
from record import SHARED, record

from openllm.core.files import sha256_file, write_json
from openllm.data.document import SPLITS, read_documents
from openllm.data.shard_writer import write_shards
from openllm.recipes.prepare import prepare_main
from openllm.recipes.tokenizer import train
from openllm.text.load import load_tokenizer
from openllm.text.tokenizer import MODEL_FILE
from openllm.text.training import TokenizerSettings

SOURCES = ("classic_books", "openstax_textbooks", "standard_ebooks")
BATCH = 256

Route = Callable[[Path], None]
"""Writes the token ids of all documents to a file."""


def write_books(folder: Path, megabytes: float) -> int:
    """Write a prepared folder of English books; return the bytes of its text."""
    folder.mkdir()
    size = documents = 0
    with open(folder / "train.jsonl", "w", encoding="utf-8") as handle:
        for source in SOURCES:
            for text in _texts(SHARED / "pretrain_en" / f"{source}.jsonl.gz"):
                if size >= megabytes * 1e6:
                    break
                record = {"id": str(documents), "text": text, "title": None, "source": source}
                handle.write(json.dumps(record, ensure_ascii=False) + "\n")
                documents += 1
                size += len(text.encode())
    splits = {split: {"documents": 0, "bytes": 0, "words": 0} for split in SPLITS}
    splits["train"] = {"documents": documents, "bytes": size, "words": 0}
    for split in SPLITS[1:]:
        (folder / f"{split}.jsonl").touch()
    index = {"kind": "documents", "corpus": "books", "sources": [], "splits": splits}
    write_json(folder / "index.json", {**index, "fingerprint": "benchmark", "config": {}})
    return size


def _texts(path: Path) -> Iterable[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def preparation(raw: Path, workers: int) -> Route:
    """`openllm data prepare`."""

    def run(out: Path) -> None:
        folder = out.with_suffix(".prepared")
        words = [str(raw), "--out", str(folder), "--workers", str(workers), "--force"]
        prepare_main(words)
        os.replace(folder / "train.jsonl", out)

    return run


def ours(data: Path, tokenizer: Path, workers: int) -> Route:
    """`openllm data tokenize`."""

    def run(out: Path) -> None:
        shards = out.with_suffix(".shards")
        write_shards(data, tokenizer, shards, workers=workers)
        os.replace(shards / "train.bin", out)

    return run


def peer(data: Path, encode: Callable[[list[str]], list[list[int]]]) -> Route:
    """The same work with another encoder."""

    def run(out: Path) -> None:
        texts = (document.text for document in read_documents(data, "train"))
        with open(out, "wb") as handle:
            while batch := list(islice(texts, BATCH)):
                for ids in encode(batch):
                    handle.write(np.array([1, *ids, 2], dtype="<u2").tobytes())

    return run


def routes(data: Path, tokenizer: Path, cores: int) -> dict[str, Route]:
    """All routes by name; their objects are loaded before timing starts."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / MODEL_FILE))
    fast = tokenizers.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    fast.encode_special_tokens = True

    def with_sentencepiece(texts: list[str]) -> list[list[int]]:
        return processor.encode(texts, num_threads=cores)

    def with_tokenizers(texts: list[str]) -> list[list[int]]:
        return [e.ids for e in fast.encode_batch_fast(texts, add_special_tokens=False)]

    return {
        "openllm, 1 process": ours(data, tokenizer, 1),
        f"openllm, {cores} processes": ours(data, tokenizer, cores),
        f"sentencepiece, {cores} threads": peer(data, with_sentencepiece),
        f"tokenizers, {cores} threads": peer(data, with_tokenizers),
    }


def measure(by_name: dict[str, Route], size: int, rounds: int, folder: Path) -> dict[str, object]:
    """Measure MB per second and MB per CPU second of each route in each round."""
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in by_name}
    checksums = set()
    names = list(by_name)
    for number in range(rounds):
        shift = number % len(names)
        for name in [*names[shift:], *names[:shift]]:
            out = folder / "out.bin"
            began, busy = time.perf_counter(), processor_seconds()
            by_name[name](out)
            seconds, busy = time.perf_counter() - began, processor_seconds() - busy
            rates[name].append((size / 1e6 / seconds, size / 1e6 / busy))
            checksums.add(sha256_file(out))
            print(f"round {number + 1}: {name}: %.2f MB/s, %.2f by processor" % rates[name][-1])
    assert len(checksums) == 1, "the routes wrote different ids"
    return {
        name: {
            "median_mb_per_s": round(statistics.median(wall for wall, _ in values), 3),
            "median_mb_per_cpu_s": round(statistics.median(cpu for _, cpu in values), 3),
            "rounds": [[round(wall, 3), round(cpu, 3)] for wall, cpu in values],
        }
        for name, values in rates.items()
    }


def processor_seconds() -> float:
    """CPU time of this process and its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = write_books(folder / "data", args.megabytes)
        train(folder / "data", folder / "tokenizer", TokenizerSettings())
        raw = folder / "data" / "train.jsonl"
        prepares = {
            "openllm, 1 process": preparation(raw, 1),
            f"openllm, {cores} processes": preparation(raw, cores),
        }
        preparing = measure(prepares, size, args.rounds, folder)
        tokenizes = routes(folder / "data", folder / "tokenizer", cores)
        tokenizing = measure(tokenizes, size, args.rounds, folder)
        vocab_size = load_tokenizer(folder / "tokenizer").vocab_size
    result = {
        "what": "documents to prepared text to a file of uint16 ids, MB of UTF-8 text a second",
        "text_bytes": size,
        "vocab_size": vocab_size,
        "preparation": preparing,
        "tokenisation": tokenizing,
        "cores": cores,
    }
    record("data_speed", result, ["openllm-lab", "sentencepiece", "tokenizers", "numpy"])
    print(json.dumps({"preparation": preparing, "tokenisation": tokenizing}, indent=1))


if __name__ == "__main__":
    main()
