# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Inside a contender's process: a line of JSON per command, and one per answer.

{"do": "build", "job": {...}}   -> {"build_seconds": s, "first_step_seconds": s, ...}
{"do": "steps", "count": k}     -> {"seconds": [...], ...}, a list entry per step, and the wall
                                   and CPU time of all steps
{"do": "peak"}                  -> {"bytes": n}

Any failure is answered with {"error": "why"}. The process ends with its input.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import torch

from contenders import documents, models
from contenders.job import LIMIT, Job
from contenders.limit import Limit

WARM_UP_STEPS = 2
"""After the first one, before any that is counted."""


class Side(Protocol):
    """What a process holds: a model, or the limit."""

    def build(self, job: Job) -> dict[str, Any]:
        """Set up."""
        ...

    def steps(self, count: int) -> dict[str, Any]:
        """Do the work `count` times."""
        ...


class Training:
    """A model that trains."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self, job: Job) -> dict[str, Any]:
        """Build model and optimizer, run the first step, then warm up."""
        began = time.perf_counter()
        self.contender = models.build(self.name, job, documents.build(self.name, job))
        built = time.perf_counter()
        first = self.contender.step()
        for _ in range(WARM_UP_STEPS):
            self.contender.step()
        parameters = {id(p): p.numel() for p in self.contender.model.parameters()}
        return {
            "build_seconds": built - began,
            "first_step_seconds": first.seconds,
            "parameters": sum(parameters.values()),
            "compiled": self.contender.compiled,
        }

    def steps(self, count: int) -> dict[str, Any]:
        """Facts of each step, one list per fact."""
        steps = [self.contender.step() for _ in range(count)]
        return {name: [getattr(step, name) for step in steps] for name in steps[0]._fields}


class Bound:
    """The matrix products alone."""

    def build(self, job: Job) -> dict[str, Any]:
        """Allocate the operands."""
        began = time.perf_counter()
        self.job, self.limit = job, Limit(job)
        built = time.perf_counter()
        self.limit.sweep()
        first = time.perf_counter() - built
        rows = [
            {"name": name, "batch": p.batch, "M": p.M, "K": p.K, "N": p.N, "layout": p.layout}
            | {"calls": calls}
            for name, p, calls in self.limit.rows
        ]
        return {"build_seconds": built - began, "first_step_seconds": first, "products": rows}

    def steps(self, count: int) -> dict[str, Any]:
        """Seconds of a step's products, the peak rate, and seconds of each product."""
        seconds, peaks, products = zip(*(self.limit.sweep() for _ in range(count)), strict=True)
        tokens = [self.job.tokens] * count
        return {
            "seconds": seconds,
            "waiting": [0.0] * count,
            "predicted": tokens,
            "cells": tokens,
            "peak_flops": peaks,
            "product_seconds": products,
        }


def serve(name: str) -> None:
    """Answer commands until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # keep library output out of the answers
    side: Side = Bound() if name == LIMIT else Training(name)
    for line in sys.stdin:
        try:
            answer = _answer(side, json.loads(line))
        except Exception as error:
            words = str(error).strip().partition("\n")[0]
            answer = {"error": f"{type(error).__name__}: {words[:200]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(side: Side, command: dict[str, Any]) -> dict[str, Any]:
    if command["do"] == "build":
        job = Job(**command["job"])
        torch.set_num_threads(job.threads)
        torch.manual_seed(0)
        return side.build(job)
    if command["do"] == "steps":
        began, busy = time.perf_counter(), time.process_time()
        answer = side.steps(command["count"])
        wall, own = time.perf_counter() - began, time.process_time() - busy
        return answer | {"wall_seconds": wall, "processor_seconds": own}
    return {"bytes": _peak_bytes()}


def _peak_bytes() -> int:
    """Peak memory so far: of the GPU if it is in use, else of this process."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
