# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The contenders' processes, only one of which computes at a time. Importable without torch."""

import argparse
import importlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from contenders.job import Job
from openllm.core.errors import OpenLLMError

SPARE = 1.2
"""Another contender needs this many times the memory of the largest one so far."""


class Failed(Exception):
    """A contender cannot continue; the message says why."""


def main(
    arguments: Callable[[Sequence[str]], argparse.Namespace],
    run: Callable[[argparse.Namespace], None],
    serve: str,
) -> int:
    """The command line of a script that starts itself for each contender; the exit code.

    Args:
        arguments: parses its words; with `--worker NAME`, the process is that contender's.
        run: the whole benchmark.
        serve: the module whose `serve(name)` is a contender's process.
    """
    try:
        args = arguments(sys.argv[1:])
        if args.worker is None:
            run(args)
        else:
            importlib.import_module(serve).serve(args.worker)
    except OpenLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


class Worker:
    """A process that holds one contender; killed at the end of a `with` block."""

    def __init__(self, script: Path, name: str, folder: Path, *, python: str | None = None) -> None:
        folder.mkdir(parents=True)
        # fresh caches: earlier compilations must not shorten the first step
        caches = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "OPENLLM_CACHE": "openllm"}
        env = {**os.environ, **{key: str(folder / value) for key, value in caches.items()}}
        if python is not None:  # of an environment that lacks OpenLLM
            env["PYTHONPATH"] = str(script.parents[1] / "src")
        self._log = folder / "log.txt"
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [python or sys.executable, str(script), "--worker", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=env,
                text=True,
                start_new_session=True,  # Ctrl-C reaches the parent, which kills this group
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def ask(self, do: str, **values: object) -> dict[str, Any]:
        """Send a command and wait for its answer.

        Raises:
            Failed: it answers with an error, or has died.
        """
        pipes = self._process.stdin, self._process.stdout
        assert pipes[0] is not None and pipes[1] is not None
        try:
            pipes[0].write(json.dumps({"do": do, **values}) + "\n")
            pipes[0].flush()
            line = pipes[1].readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failed(self._last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        lines = self._log.read_text(errors="replace").split("\n")
        words = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{ended}: {words[:300]}" if words else ended


@dataclass
class Outcome:
    """Result of a contender: a turn of steps per round, or the reason why not."""

    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    turns: list[dict[str, Any]] = field(default_factory=list)
    peak_bytes: int = 0
    reason: str | None = None

    def rates(self) -> list[float]:
        """Predicted tokens per second of each turn: of its median step if all steps are alike."""
        found = []
        for turn in self.turns:
            seconds, predicted = turn["seconds"], turn["predicted"]
            if len(set(predicted)) == 1:
                found.append(predicted[0] / statistics.median(seconds))
            else:
                found.append(sum(predicted) / sum(seconds))
        return found


def compete(
    names: Sequence[str],
    job: Job,
    *,
    script: Path,
    folder: Path,
    rounds: int,
    steps: int,
    say: Callable[[str], None],
) -> list[Outcome]:
    """Build every contender, then let them take turns; each round starts with another one."""
    outcomes = {name: Outcome(name) for name in names}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name, outcome in outcomes.items():
            try:
                if job.device == "cpu":
                    _check_memory(max(o.peak_bytes for o in outcomes.values()))
                worker = stack.enter_context(Worker(script, name, folder / name))
                began = time.perf_counter()
                outcome.facts = worker.ask("build", job=asdict(job))
                outcome.peak_bytes = worker.ask("peak")["bytes"]
            except Failed as failure:
                outcome.reason = str(failure)
                say(f"{name}: left out: {outcome.reason}")
                continue
            workers[name] = worker
            say(f"{name}: ready after {time.perf_counter() - began:.1f} s")
        for number in range(rounds):
            shift = number % len(names)
            for name in [*names[shift:], *names[:shift]]:
                outcome = outcomes[name]
                if outcome.reason is not None:
                    continue
                try:
                    outcome.turns.append(_turn(workers[name], steps))
                    outcome.peak_bytes = workers[name].ask("peak")["bytes"]
                except Failed as failure:
                    outcome.reason, outcome.turns = str(failure), []
                    say(f"{name}: left out: {outcome.reason}")
                    continue
                say(f"round {number + 1}/{rounds}: {name}: {outcome.rates()[-1]:,.0f} tokens/s")
    return list(outcomes.values())


def _turn(worker: Worker, steps: int) -> dict[str, Any]:
    """Run some steps; record how many cores other programs kept busy meanwhile."""
    before = _machine_seconds()
    turn = worker.ask("steps", count=steps)
    after = _machine_seconds()
    if before is not None and after is not None:
        others = after - before - turn["processor_seconds"]
        turn["cores_of_others"] = max(0.0, others / turn["wall_seconds"])
    return turn


def _machine_seconds() -> float | None:
    """CPU time of all programs on this machine; None if unavailable."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    ticks = [int(word) for word in path.read_text().split("\n", 1)[0].split()[1:]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def _check_memory(largest: int) -> None:
    """Refuse another contender if one as large as the largest may not fit."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return
    (line,) = (x for x in meminfo.read_text().splitlines() if x.startswith("MemAvailable:"))
    free = int(line.split()[1]) * 1024
    if free < SPARE * largest:
        raise Failed(
            f"{free / 2**30:.1f} GiB of memory are free beside the others, which may be too "
            "little; name fewer with --contenders"
        )
