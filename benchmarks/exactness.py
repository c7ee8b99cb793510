# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Runs killed at random moments and resumed, compared with an undisturbed one.

    python benchmarks/exactness.py [RUNS] [SEED]      writes benchmarks/results/exactness.json

Each run is `openllm train` in a separate process, killed by SIGKILL: at any time, in the middle
of training, while writing a checkpoint, while writing the model folder. Compared bit for bit: the
metrics without times, the model's weights, and all of the last checkpoint.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import record

from openllm.core.runs import read_metrics

RUNS = 20
STEPS = 40
SETTINGS = {
    "duration": f"{STEPS} steps",
    "threads": 1,
    "batch.seq_len": 64,
    "batch.tokens": 1024,
    "batch.micro_rows": 8,
    "validation.every": 4,
    "validation.tokens": 1000,
    "checkpoint.every": 3,
    "model.dim": 64,
    "model.num_layers": 2,
    "model.dropout": 0.1,
    "model.attention.num_heads": 2,
    "model.attention.head_dim": 32,
    "model.mlp.hidden_dim": 192,
    "ema": 0.9,
}
KINDS = ("any time", "in training", "in a checkpoint", "in the model folder", "in a checkpoint")


@dataclass
class Shop:
    """The folder of the runs, and the duration of an undisturbed one."""

    folder: Path
    seconds: float = 0.0

    def openllm(self, *words: str) -> None:
        """Run a command to completion."""
        command = [sys.executable, "-m", "openllm", *words]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)

    def training(self, name: str) -> list[str]:
        """The command line of a run."""
        settings = [f"{key}={value}" for key, value in SETTINGS.items()]
        places = ["data=data", "tokenizer=tokenizer", "--out", f"{name}/run"]
        return ["train", "tiny", *settings, *places]


def outcome(run: Path) -> dict[str, Any]:
    """Everything that must be equal."""
    last = max((run / "checkpoints").glob("step-*"))
    metrics = [
        {key: value for key, value in line.items() if key != "seconds"}
        for line in read_metrics(run)
    ]
    state = json.loads((last / "state.json").read_text())
    del state["metrics_offset"]  # line lengths vary with the digits of times
    files = [*last.glob("*.safetensors"), run / "model" / "model.safetensors"]
    return {"metrics": metrics, "state": state, **{file.name: file.read_bytes() for file in files}}


def steps_done(run: Path) -> int:
    """Number of training steps a run has logged."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b'"kind": "train"') if path.exists() else 0


def moment(kind: str, run: Path, seconds: float, draw: random.Random) -> Callable[[], bool]:
    """Return a condition that becomes true at a random moment of that kind."""
    if kind == "any time":
        end = time.monotonic() + draw.uniform(0, seconds)
        return lambda: time.monotonic() >= end
    step = draw.randint(1, STEPS - 4)
    if kind == "in training":
        return lambda: steps_done(run) >= step
    place, pattern = (
        (run, ".model.tmp")
        if kind == "in the model folder"
        else (
            run / "checkpoints",
            ".step-*.tmp",
        )
    )
    return lambda: any(place.glob(pattern)) and steps_done(run) >= step


def kill_once(shop: Shop, name: str, kind: str, draw: random.Random) -> dict[str, Any]:
    """Start a run and kill it at a moment of that kind."""
    run = shop.folder / name / "run"
    ready = moment(kind, run, shop.seconds, draw)
    command = [sys.executable, "-m", "openllm", *shop.training(name)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=shop.folder, stdout=quiet, stderr=quiet)
    while process.poll() is None and not ready():
        time.sleep(0.0005)
    time.sleep(draw.uniform(0, 0.01))
    process.send_signal(signal.SIGKILL)
    killed = process.wait() == -signal.SIGKILL
    return {
        "moment": kind,
        "killed": killed,
        "steps_logged": steps_done(run),
        "checkpoint_half_written": any((run / "checkpoints").glob(".step-*.tmp")),
        "model_half_written": (run / ".model.tmp").exists(),
    }


def prepare(folder: Path) -> Shop:
    """Create documents, a tokenizer and an undisturbed run."""
    shop = Shop(folder)
    shop.openllm("data", "prepare", "builtin", "--documents", "300", "--out", "data")
    words = ["data", "--vocab-size", "1024", "--out", "tokenizer"]
    shop.openllm("tokenizer", "train", *words)
    shop.openllm("data", "tokenize", "data", "--tokenizer", "tokenizer")
    began = time.monotonic()
    shop.openllm(*shop.training("straight"))
    shop.seconds = time.monotonic() - began
    return shop


def main(argv: list[str]) -> int:
    """Kill, resume, compare, write the result; fail if a run differs."""
    count = int(argv[0]) if argv else RUNS
    seed = int(argv[1]) if len(argv) > 1 else 0
    draw = random.Random(seed)
    runs = []
    with tempfile.TemporaryDirectory() as name:
        shop = prepare(Path(name))
        expected = outcome(shop.folder / "straight" / "run")
        shop.openllm(*shop.training("again"))
        repeated = outcome(shop.folder / "again" / "run") == expected
        for number in range(count):
            told = kill_once(shop, f"run-{number}", KINDS[number % len(KINDS)], draw)
            while not told["killed"]:  # it had finished before
                shutil.rmtree(shop.folder / f"run-{number}")
                told = kill_once(shop, f"run-{number}", KINDS[number % len(KINDS)], draw)
            shop.openllm(*shop.training(f"run-{number}"))
            found = outcome(shop.folder / f"run-{number}" / "run")
            told["equal"] = found == expected
            runs.append(told)
            print(json.dumps(told), flush=True)
    equal = sum(run["equal"] and run["killed"] for run in runs)
    result = {
        "what": "training runs killed by SIGKILL and taken up, equal bit by bit to a straight run",
        "settings": SETTINGS,
        "seed": seed,
        "killed": sum(run["killed"] for run in runs),
        "equal": equal,
        "killed_while_a_checkpoint_was_written": sum(
            run["checkpoint_half_written"] for run in runs
        ),
        "killed_while_the_model_folder_was_written": sum(run["model_half_written"] for run in runs),
        "two_runs_with_one_seed_equal": repeated,
        "runs": runs,
    }
    record("exactness", result)
    print(f"{equal} of {count} equal; two runs with one seed equal: {repeated}")
    return 0 if equal == count and repeated else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
