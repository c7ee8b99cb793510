# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Peak memory of `openllm data prepare` on some text and on ten times as much.

    python benchmarks/prepare_memory.py      writes benchmarks/results/prepare_memory.json

Text is generated: random words, 60 to 170 per document, 20 documents per title, so that all of it
passes every step. Each run is a separate process with one worker, which runs the code that
workers run otherwise; its peak is what the kernel reports (ru_maxrss).
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import record

from openllm.data.prepare.store import DISK_BYTES, MEMORY_BYTES

MEGABYTES = (12, 120)
ALLOWED = 0.10
RUN = """
import resource, sys
from openllm.recipes.prepare import prepare_main
prepare_main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_text(path: Path, megabytes: int) -> int:
    """Write documents as JSON lines; return how many."""
    draw = random.Random(megabytes)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(30_000)]
    written = documents = 0
    with open(path, "w", encoding="utf-8") as handle:
        while written < megabytes * 1e6:
            text = " ".join(draw.choices(words, k=draw.randint(60, 170)))
            title = f"Article {documents // 20}"
            handle.write(json.dumps({"text": text, "title": title}) + "\n")
            written += len(text)
            documents += 1
    return documents


def measure(folder: Path, megabytes: int) -> dict[str, Any]:
    """Prepare that much text and return what it took."""
    source = folder / f"text-{megabytes}.jsonl"
    documents = write_text(source, megabytes)
    out = folder / f"out-{megabytes}"
    command = [sys.executable, "-c", RUN, str(source), "--out", str(out), "--workers", "1"]
    began = time.monotonic()
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {
        "megabytes": megabytes,
        "documents": documents,
        "kept": report["kept"],
        "peak_mb": round(int(answer.stdout.split()[-1]) / 1024, 1),
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> int:
    """Measure, write the result, and fail if memory grew too much."""
    with tempfile.TemporaryDirectory() as folder:
        small, large = (measure(Path(folder), megabytes) for megabytes in MEGABYTES)
    stated = (large["documents"] - small["documents"]) * MEMORY_BYTES / 2**20
    growth = large["peak_mb"] - small["peak_mb"]
    beyond = max(0.0, growth - stated) / small["peak_mb"]
    result = {
        "what": "peak resident memory of 'openllm data prepare', one worker",
        "runs": [small, large],
        "stated_bytes_per_document": {"memory": MEMORY_BYTES, "disk": DISK_BYTES},
        "growth_mb": round(growth, 1),
        "stated_growth_mb": round(stated, 1),
        "growth_of_peak": round(growth / small["peak_mb"], 3),
        "growth_beyond_stated": round(beyond, 3),
        "allowed": ALLOWED,
    }
    record("prepare_memory", result, ["numpy"])
    print(json.dumps(result, indent=1))
    return 0 if beyond < ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
