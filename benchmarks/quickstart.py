# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The quickstart on this machine: its numbers, its curve, and its first ten samples.

    python benchmarks/quickstart.py [NAME ...]      all of RUNS, or those named

Writes benchmarks/results/quickstart.json, and docs/samples.md from the shortest. A finished
quickstart in runs/NAME is reused, else it runs there.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from record import RESULTS, ROOT, record

from openllm.core.errors import DataError
from openllm.core.files import read_json
from openllm.core.runs import read_metrics
from openllm.recipes import quickstart

RUNS = {"quickstart-short": 1, "quickstart": 4, "quickstart-long": 20}
"""Target minutes of training."""
SHOWN = 10


def page(summary: dict[str, Any]) -> str:
    """The first samples, unedited, for the docs."""
    samples = summary["samples"]
    parts = [
        "# What the quickstart's model writes\n\n"
        f"The first {SHOWN} of {len(samples)} samples of one run, not chosen: continuations of the "
        f"openings (bold) of held-out stories, whose names no training text shows, at temperature "
        f"{quickstart.TEMPERATURE}. {summary['parameters'] / 1e6:.1f}M parameters, "
        f"{summary['tokens']:,} tokens, {summary['train_seconds'] / 60:.1f} minutes of training; "
        f"held-out text {summary['heldout_bpb']:.3f} bits per byte, 5-gram baseline "
        f"{summary['ngram_bpb']:.3f}; {summary['consistency']:.0%} of what all samples claim is "
        "consistent. Source: `benchmarks/results/quickstart.json`, written with this page by "
        "`benchmarks/quickstart.py`. Line ends are shown as spaces.\n"
    ]
    for number, sample in enumerate(samples[:SHOWN], 1):
        text = " ".join(f"**{sample['prompt']}**{sample['text']}".split())
        parts.append(f"\n{number}. ({sample['consistency']:.0%}) {text}\n")
    return "".join(parts)


def run(name: str) -> dict[str, Any]:
    """Run or read a quickstart; return its entry in the results file."""
    out = Path("runs") / name
    seconds = None  # unknown for a finished quickstart
    if not (out / "summary.json").exists():
        began = time.perf_counter()
        quickstart.main(["--minutes", str(RUNS[name]), "--out", str(out)])
        seconds = round(time.perf_counter() - began, 1)
    summary = read_json(out / "summary.json", DataError, "delete the folder and repeat")
    curve = [
        [line["tokens"], round(line["bits_per_byte"], 4)]
        for line in read_metrics(out / quickstart.RECIPE)
        if line["kind"] == "validation"
    ]
    commit = read_json(out / quickstart.RECIPE / "env.json", DataError, "repeat")["commit"]
    return {"commit": commit, "seconds_in_all": seconds, **summary, "validation": curve}


def main(names: list[str]) -> None:
    """Run what was requested and record it beside earlier results."""
    path = RESULTS / "quickstart.json"
    results = json.loads(path.read_text())["runs"] if path.exists() else {}
    for name in names or RUNS:
        results[name] = run(name)
        runs = {key: results[key] for key in RUNS if key in results}
        record("quickstart", {"what": "openllm quickstart", "runs": runs})
    (ROOT / "docs" / "samples.md").write_text(page(results["quickstart"]), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
