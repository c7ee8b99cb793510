# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`openllm` commands in separate processes, which can be watched, stopped and killed.

They are forked from a server that has already loaded torch, so that starting one takes no time.
"""

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_PRELOADED = [
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "openllm.checkpoint.card",
    "openllm.checkpoint.model_dir",
    "openllm.cli.main",
    "openllm.recipes.pretrain",
    "openllm.recipes.tokenize",
    "openllm.train.hooks",
    "openllm.train.report",
    "torch._dynamo",
    "torch._subclasses.fake_tensor",
]
_FORKS.set_forkserver_preload(_PRELOADED)
TIMEOUT = 120
"""Seconds after which a test gives up; a run takes two."""


def _run(argv: Sequence[str], log: Path, file_limit: int | None, memory_limit: int | None) -> None:
    """The process body: `openllm ARGV` with its output written to `log`."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    if memory_limit is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_limit
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    from openllm.cli.main import main

    code = main(argv)
    os._exit(code)


class Command:
    """A running `openllm` command.

    Args:
        argv: its arguments.
        log: receives its output.
        file_limit: maximum file size in bytes; larger files fail as on a full disk.
        memory_limit: bytes that it may allocate.
    """

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        file_limit: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        self.log = log
        arguments = (list(argv), log, file_limit, memory_limit)
        self.process = _FORKS.Process(target=_run, args=arguments)
        self.process.start()

    def until(self, ready: Callable[[], bool]) -> "Command":
        """Wait for a condition; the process must not end first."""
        deadline = time.monotonic() + TIMEOUT
        while not ready():
            assert self.process.is_alive(), f"it ended too early: {self.said()}"
            assert time.monotonic() < deadline, f"nothing happened: {self.said()}"
            time.sleep(0.001)
        return self

    def signal(self, number: int) -> "Command":
        """Send a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)
        return self

    def code(self) -> int:
        """The exit code, negative for a signal, after the process has ended."""
        self.process.join(TIMEOUT)
        assert self.process.exitcode is not None, f"it does not end: {self.said()}"
        return self.process.exitcode

    def said(self) -> str:
        """What it has printed so far."""
        return self.log.read_text() if self.log.exists() else ""


def steps_done(run: Path) -> int:
    """Training steps that a run has logged."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b'"kind": "train"') if path.exists() else 0


def saving(run: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any((run / "checkpoints").glob(".step-*.tmp"))
