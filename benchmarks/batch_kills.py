# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Batches that are killed again and again at random moments, compared with undisturbed ones.

    python benchmarks/batch_kills.py MODEL --kills 40

MODEL is a trained model folder, such as that of the quickstart. Writes
benchmarks/results/batch_kills.json.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import record

from openllm.core.log import say

REQUESTS = 400


def write_requests(path: Path, draw: random.Random) -> None:
    """Texts to continue, of different lengths."""
    with path.open("w") as handle:
        for index in range(REQUESTS):
            wish = {"max_tokens": draw.randint(1, 48), "seed": index, "temperature": 0.9}
            body = {"prompt": f"Chapter {index}. Once upon a time", **wish}
            line = {"custom_id": str(index), "method": "POST", "url": "/v1/completions"}
            handle.write(json.dumps({**line, "body": body}) + "\n")


def results(path: Path) -> list[tuple[str, Any]]:
    """Custom id and what was answered, of each line, without what differs each time."""
    found = []
    for raw in path.read_text().splitlines():
        line = json.loads(raw)
        body = {k: v for k, v in line["response"]["body"].items() if k not in ("id", "created")}
        found.append((line["custom_id"], (line["response"]["status_code"], body)))
    return found


def command(source: Path, out: Path, model: Path) -> list[str]:
    """The command under test."""
    flags = ["--model", str(model), "--exact", "--concurrency", "8", "--json"]
    return [sys.executable, "-m", "openllm", "batch", str(source), str(out), *flags]


def lines(path: Path) -> int:
    """Whole lines of a file that may not be there yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_once(call: list[str], out: Path, after: int, draw: random.Random) -> dict[str, Any] | None:
    """Start, kill once some more lines are there; none if it ended before."""
    before = lines(out)
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and lines(out) < before + after:
        time.sleep(0.002)
    time.sleep(draw.random() * 0.05)
    process.kill()
    if process.wait() == 0:
        return None
    return {"lines_before": before, "lines_after": lines(out)}


def main() -> None:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--kills", type=int, default=40)
    args = parser.parse_args()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        source, whole, out = (Path(place, name) for name in ("in", "whole", "out"))
        write_requests(source, draw)
        call = command(source, whole, args.model)
        summary = json.loads(subprocess.run(call, check=True, stdout=subprocess.PIPE).stdout)
        expected = dict(results(whole))
        rounds, kills, lost, repeated, different = 0, [], 0, 0, 0
        while len(kills) < args.kills:
            out.unlink(missing_ok=True)
            rounds += 1
            while len(kills) < args.kills:
                after = draw.randint(0, REQUESTS // 6)
                found = kill_once(command(source, out, args.model), out, after, draw)
                if found is None:
                    break
                kills.append(found)
                say(f"kill {len(kills)}: {found['lines_after']} of {REQUESTS} results")
            subprocess.run(command(source, out, args.model), check=True, stdout=subprocess.DEVNULL)
            pairs = results(out)
            found = dict(pairs)
            lost += len(expected.keys() - found.keys())
            repeated += len(pairs) - len(found)
            different += sum(expected.get(name) != value for name, value in found.items())
    facts = {
        "requests": REQUESTS,
        "kills": len(kills),
        "batches": rounds,
        "results_lost": lost,
        "results_repeated": repeated,
        "results_different_from_an_undisturbed_run": different,
        "undisturbed": summary,
        "each_kill": kills,
    }
    record("batch_kills", facts, ("torch",))


if __name__ == "__main__":
    main()
