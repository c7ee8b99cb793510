# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Peak memory of training `small`, forecast before the first step and measured by the system.

python benchmarks/train_memory.py         writes benchmarks/results/train_memory.json
"""

import json
import subprocess
import sys

from record import ROOT, record

CASES = (
    "batch.tokens=4096",
    "batch.tokens=4096 precision=fp32 optim.kind=adamw",
    "batch.tokens=2048 batch.micro_rows=1",
    "batch.tokens=4096 activation_checkpointing=true",
)
STEPS = 2


def main() -> None:
    """Measure each case in a separate process, and store."""
    runs = []
    for case in CASES:
        command = [sys.executable, "-m", "tests.train.peak", "small", "32000", str(STEPS)]
        done = subprocess.run(
            [*command, *case.split()], cwd=ROOT, capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout)
        ratio = round(found["foretold"] / found["measured"], 3)
        mib = {name: round(size / 2**20) for name, size in found.items()}
        runs.append({"settings": case, "mib": mib, "foretold_over_measured": ratio})
        print(runs[-1], flush=True)
    what = "peak resident memory of training 'small' with a vocabulary of 32,000"
    record("train_memory", {"what": what, "steps": STEPS, "runs": runs})


if __name__ == "__main__":
    main()
