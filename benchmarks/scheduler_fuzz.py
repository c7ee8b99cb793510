# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Random histories of requests against the engine's scheduler and block pool.

    python benchmarks/scheduler_fuzz.py [HISTORIES]   writes benchmarks/results/scheduler_fuzz.json

Each run of each history is checked: no block is lost, written to while it is shared, or read where
another text is; counts are right; the token budget holds; the oldest sequence advances in every
run, nobody is overtaken, and every history comes to an end. See tests/engine/histories.py.
"""

import sys
import time
from collections import Counter

from record import ROOT, record

HISTORIES = 100_000
STEP = 1000


def main() -> None:
    """Play, and write what occurred."""
    sys.path.insert(0, str(ROOT))
    from tests.engine.histories import MOST_RUNS, play

    histories = int(sys.argv[1]) if len(sys.argv) > 1 else HISTORIES
    began, total = time.perf_counter(), Counter[str]()
    for first in range(0, histories, STEP):
        total += play(range(first, min(first + STEP, histories)))
        print(f"{total['histories']:,} histories, {total['runs']:,} runs", flush=True)
    seconds = round(time.perf_counter() - began, 1)
    facts = {"broken": 0, "most_runs_allowed": MOST_RUNS, "seconds": seconds}
    print(record("scheduler_fuzz", {**facts, "events": dict(total)}, packages=()))


if __name__ == "__main__":
    main()
