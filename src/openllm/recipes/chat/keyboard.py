# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What the user types: lines with editing and history, and texts of several lines."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

QUOTE = '"""'
MOST_LINES = 2000
"""Lines that the history keeps."""


def history_file() -> Path:
    """Where the lines of earlier chats are."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state, "openllm", "chat_history")


@contextlib.contextmanager
def editing(history: Path | None, words: Sequence[str]) -> Iterator[None]:
    """Arrow keys, history and completion for `input()`, where the system has readline.

    Args:
        history: file of earlier lines, readable by its owner only; none: nothing is kept.
        words: that Tab completes at the beginning of a line.
    """
    try:
        import readline
    except ImportError:  # Windows: its terminals edit lines themselves
        yield
        return
    _complete(readline, words)
    if history is None:
        yield
        return
    readline.set_history_length(MOST_LINES)
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    try:
        yield
    finally:
        # no history is no reason to fail
        with contextlib.suppress(OSError):
            history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(history, os.O_CREAT | os.O_WRONLY, 0o600))
            readline.write_history_file(history)


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """What is typed meanwhile is not shown, Ctrl-C neither; it is there for the next line."""
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin.fileno())
    now = [*before]
    now[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, now)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)


def _complete(readline: Any, words: Sequence[str]) -> None:
    def complete(text: str, state: int) -> str | None:
        found = [word for word in words if word.startswith(text)] if text else []
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n")
    readline.parse_and_bind("tab: complete")
    # lines that are pasted together stay together
    readline.parse_and_bind("set enable-bracketed-paste on")


def read_text(prompt: str) -> str:
    r"""What the user types: a line, lines that end with \ and the next, or lines in triple quotes.

    Raises:
        EOFError: the input has ended.
        KeyboardInterrupt: Ctrl-C.
    """
    line = input(prompt)
    if line.lstrip().startswith(QUOTE):
        return _quoted(line.lstrip().removeprefix(QUOTE))
    lines = []
    while line.endswith("\\"):
        lines.append(line[:-1])
        line = input("… ")
    return "\n".join([*lines, line])


def _quoted(line: str) -> str:
    lines = []
    while not line.rstrip().endswith(QUOTE):
        lines.append(line)
        line = input("… ")
    return "\n".join([*lines, line.rstrip().removesuffix(QUOTE)]).strip("\n")
