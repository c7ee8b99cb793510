# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Progress output for the user: lines and one progress bar, both on standard error.

Standard output is reserved for results (text, tables, JSON), so that every command can be piped.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on: rich would end the process, whose work does not depend on who reads its lines."""


@cache
def console() -> Console:
    """The console on standard error."""
    return _Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """Print a one-line message."""
    _print(printable(message))


def warn(message: str) -> None:
    """Print a one-line warning."""
    _print(f"warning: {printable(message)}", style="yellow")


def _print(line: str, style: str | None = None) -> None:
    with suppress(OSError):  # the terminal is gone, or the disk of the log is full
        console().print(line, style=style, markup=False)


def printable(text: str) -> str:
    """The text in a form any terminal accepts: file names may hold bytes that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def format_duration(seconds: float) -> str:
    """`75` -> `1m15s`."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m{seconds:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


class Meter:
    """A progress bar with rate and time left; without a terminal, a line every ten seconds."""

    def __init__(self, label: str, total: float | None, unit: str, *, start: float = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.start = self.done = start
        self.detail = ""
        self._began = time.monotonic()
        self._printed = self._began
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def open(self) -> None:
        """Show the bar."""
        if not console().is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console(),
            transient=False,
        )
        self._task = self._bar.add_task(
            self.label, total=self.total, completed=int(self.done), state=""
        )
        self._bar.start()

    def advance(self, amount: float = 1, detail: str = "") -> None:
        """Count `amount` more units as done."""
        self.done += amount
        self.detail = detail
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, state=self.state())
        elif sys.stderr is not None and time.monotonic() - self._printed >= 10:
            self._printed = time.monotonic()
            say(f"{self.label}: {self.state()}")

    def state(self) -> str:
        """Amount done, rate and time left, as text."""
        elapsed = time.monotonic() - self._began
        rate = (self.done - self.start) / elapsed if elapsed > 0 else 0.0
        total = f"/{self.total:,.0f}" if self.total is not None else ""
        parts = [f"{self.done:,.0f}{total} {self.unit}", f"{rate:,.1f} {self.unit}/s"]
        if self.total is not None and rate > 0:
            parts.append(f"ETA {format_duration((self.total - self.done) / rate)}")
        return ", ".join([*parts, self.detail] if self.detail else parts)

    def close(self) -> None:
        """Stop the bar, leaving its last state on the screen."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress(label: str, total: float | None, unit: str, *, start: float = 0) -> Iterator[Meter]:
    """A `Meter` as a context manager."""
    meter = Meter(label, total, unit, start=start)
    meter.open()
    try:
        yield meter
    finally:
        meter.close()
