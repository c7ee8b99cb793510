# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Ablation of the recipes: a queue of training runs on real text.

    python benchmarks/ablate.py                    all rows that have no result yet
    python benchmarks/ablate.py --jobs 2           two runs at once, each on half of the cores
    python benchmarks/ablate.py --only tiny:recipe --only 'tiny:no *'
    python benchmarks/ablate.py --list             rows, and which are done
    python benchmarks/ablate.py --report           only the table and the plot
    python benchmarks/ablate.py --pace tiny        tokens/s of recipe and baseline, in turns

SQuAD, held out by article. Each run is a separate process; its result goes to
benchmarks/results/ablate.json as soon as it finishes, under a digest of the row's own settings.
After changing a shipped recipe or the text, remove the runs that depend on it. The queue may be
stopped at any time and resumes where it was; our own runs also resume mid-run.
"""

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ablation.report import best_baseline, plot, table
from ablation.rows import ROWS, SIZES, WORK, Row, digest
from ablation.runs import run
from ablation.text import prepare_size
from record import RESULTS, record

from openllm.core.log import say
from openllm.core.runs import source_commit

FILE = RESULTS / "ablate.json"
FILE_LOCK = threading.Lock()


def stored(part: str) -> dict[str, Any]:
    """Stored results: `runs` by digest, `pace` by size."""
    return json.loads(FILE.read_text()).get(part, {}) if FILE.exists() else {}


def store(part: str, key: str, value: dict[str, Any]) -> None:
    """Add one result to a part of the file."""
    with FILE_LOCK:
        parts = {name: stored(name) for name in ("runs", "pace")}
        parts[part][key] = value
        record("ablate", {"what": "training runs on SQuAD", **parts})


def keep_pace(size: str) -> None:
    """Measure the speed of a size's recipe and its best baseline."""
    from ablation.pace import measure

    baseline = best_baseline(named_results(), size)
    ours, plain = (
        next(row for row in ROWS if row.label == label) for label in (f"{size}:recipe", baseline)
    )
    prepare_size(SIZES[size], ours)
    found = measure(ours, plain)
    store("pace", size, found)
    print(json.dumps(found, indent=1))


def named_results() -> dict[tuple[str, int], dict[str, Any]]:
    """Stored results by row label and seed."""
    done = stored("runs")
    return {
        (row.label, seed): done[digest(row, seed)]
        for row in ROWS
        for seed in range(row.seeds)
        if digest(row, seed) in done
    }


def wanted(patterns: list[str]) -> list[tuple[Row, int]]:
    """Rows and seeds in queue order: first one seed of each."""
    chosen = [
        row
        for row in ROWS
        if not patterns or any(fnmatch.fnmatch(row.label, pattern) for pattern in patterns)
    ]
    return [(row, seed) for seed in range(3) for row in chosen if seed < row.seeds]


def unfinished(queue: list[tuple[Row, int]]) -> list[list[tuple[Row, int]]]:
    """What to train, in stages: rows without result and teachers without model, then students.

    The results file travels with the code, models do not.
    """
    missing = [(row, seed) for row, seed in queue if digest(row, seed) not in stored("runs")]
    students = [(row, seed) for row, seed in missing if row.taught_by]
    teachers = [
        (row.taught_by, seed)
        for row, _ in students
        for seed in range(row.taught_by.seeds)
        if not (WORK / digest(row.taught_by, seed) / "model").exists()
    ]
    alone = [pair for pair in missing if pair not in students]
    return [alone + [pair for pair in teachers if pair not in alone], students]


def train_row(row: Row, seed: int, threads: int) -> None:
    """Run one row in a separate process and store its result."""
    command = [sys.executable, __file__, "--worker", row.label, str(seed), str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        say(f"{row.label}, seed {seed}: failed ({done.returncode}); going on")
        return
    found = json.loads(done.stdout.splitlines()[-1])
    if digest(row, seed) not in stored("runs"):  # else only its model was missing
        value = {"row": row.label, "commit": source_commit(), "threads": threads, **found}
        store("runs", digest(row, seed), value)
    say(f"{row.label}, seed {seed}: {found['test_bpb']:.4f} bits per byte")


def train_all(pairs: list[tuple[Row, int]], jobs: int, threads: int) -> None:
    """Run rows and seeds, some at once."""
    for row, _ in pairs:
        prepare_size(SIZES[row.size], row)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(lambda pair: train_row(*pair, threads), pairs))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise


def main() -> None:
    """Run what is missing, then write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], help="pattern of SIZE:ROW")
    parser.add_argument("--list", action="store_true", help="list the rows and exit")
    parser.add_argument("--report", action="store_true", help="do not train")
    parser.add_argument("--pace", choices=list(SIZES), help="measure the speed of a size and exit")
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        label, seed, threads = args.worker[0], int(args.worker[1]), int(args.worker[2])
        row = next(row for row in ROWS if row.label == label)
        print(json.dumps(run(row, seed, threads, WORK / digest(row, seed))))
        return
    if args.pace:
        keep_pace(args.pace)
        return
    queue = wanted(args.only)
    if args.list:
        for row, seed in queue:
            found = stored("runs").get(digest(row, seed))
            state = f"{found['test_bpb']:.4f}" if found else "-"
            print(f"{row.label:44s} {seed}  {state}")
        return
    if not args.report:
        stages = unfinished(queue)
        threads = max(1, (os.cpu_count() or 1) // args.jobs)
        say(f"{sum(map(len, stages))} runs, {args.jobs} at once with {threads} threads each")
        for stage in stages:
            train_all(stage, args.jobs, threads)
    named = named_results()
    print(table(named, stored("pace")))
    plot(named, Path(RESULTS / "ablate.png"))


if __name__ == "__main__":
    main()
