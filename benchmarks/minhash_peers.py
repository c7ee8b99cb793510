# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""MinHash signatures of real passages: ours against rensa and datasketch, in one run.

    make bench, or: python benchmarks/minhash_peers.py [PASSAGES.txt.gz]

Each turns the same texts into 128 minima over word 5-grams, in one thread. The time is CPU time,
the best of three rounds, and includes splitting into words: that is what a user waits for.
"""

import gzip
import json
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from record import SHARED, record

from openllm.data.prepare.dedup import MINIMA, SHINGLE, minhash
from openllm.data.prepare.ngrams import ngrams, split_words

BATCH = 256
ROUNDS = 3


def ours(texts: list[str]) -> None:
    """The calls that `openllm data prepare` makes."""
    for start in range(0, len(texts), BATCH):
        minhash(ngrams(split_words(texts[start : start + BATCH]), SHINGLE, whole=True))


def shingles(text: str) -> list[str]:
    """Word n-grams as strings, as the peers expect."""
    words = text.lower().split()
    return [" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))]


def with_rensa(texts: list[str]) -> None:
    """One `RMinHash` per text."""
    from rensa import RMinHash

    for text in texts:
        signature = RMinHash(num_perm=MINIMA, seed=1)
        signature.update(shingles(text))
        signature.digest()


def with_datasketch(texts: list[str]) -> None:
    """One `MinHash` per text, filled by `update_batch`."""
    from datasketch import MinHash

    for text in texts:
        MinHash(num_perm=MINIMA, seed=1).update_batch([s.encode() for s in shingles(text)])


def seconds(work: Callable[[list[str]], None], texts: list[str]) -> float:
    """CPU time of one pass, best of `ROUNDS` after a warm-up on a few texts."""
    work(texts[:BATCH])
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        work(texts)
        best = min(best, time.process_time() - began)
    return best


def main(argv: list[str]) -> int:
    """Measure and write the result file."""
    source = Path(argv[0]) if argv else SHARED / "squad" / "passages.txt.gz"
    with gzip.open(source, "rt", encoding="utf-8") as handle:
        texts = handle.read().split("\n\n")
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    works = {"openllm": ours, "rensa": with_rensa, "datasketch": with_datasketch}
    names = {"openllm": "openllm-lab"}
    result = {
        "what": "MB of text a second of processor time, one thread, 128 minima over word 5-grams",
        "data": {"file": source.name, "texts": len(texts), "megabytes": round(megabytes, 2)},
        "megabytes_per_second": {
            f"{name} {metadata.version(names.get(name, name))}": round(
                megabytes / seconds(work, texts), 1
            )
            for name, work in works.items()
        },
    }
    record("minhash_peers", result, ["numpy"])
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
