# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The quickstart on this machine: its numbers, its curve, and its first ten samples.

    python benchmarks/quickstart.py [FOLDER]

Writes benchmarks/results/quickstart.json and docs/samples.md. A FOLDER that holds a finished
quickstart is read; else the quickstart runs there (default runs/quickstart).
"""

import sys
import time
from pathlib import Path
from typing import Any

from record import ROOT, record

from openllm.core.errors import DataError
from openllm.core.files import read_json
from openllm.core.runs import read_metrics
from openllm.recipes import quickstart

SHOWN = 10


def page(summary: dict[str, Any]) -> str:
    """The first samples as they are, for the docs."""
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


def main(argv: list[str]) -> None:
    """Run or read a quickstart and record it."""
    out = Path(argv[0]) if argv else Path("runs/quickstart")
    seconds = None  # of a finished quickstart they are not known
    if not (out / "summary.json").exists():
        began = time.perf_counter()
        quickstart.main(["--out", str(out)])
        seconds = round(time.perf_counter() - began, 1)
    summary = read_json(out / "summary.json", DataError, "delete the folder and repeat")
    (ROOT / "docs" / "samples.md").write_text(page(summary), encoding="utf-8")
    curve = [
        [line["tokens"], round(line["bits_per_byte"], 4)]
        for line in read_metrics(out / quickstart.RECIPE)
        if line["kind"] == "validation"
    ]
    facts = {"what": "openllm quickstart", "seconds_in_all": seconds, **summary}
    record("quickstart", {**facts, "validation": curve})


if __name__ == "__main__":
    main(sys.argv[1:])
