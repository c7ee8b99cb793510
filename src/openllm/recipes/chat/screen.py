# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What the terminal shows: Markdown that grows, and notes beside it."""

import re
import time
from collections.abc import Iterator
from typing import Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment

FRAME_S = 1 / 15
"""Seconds between two pictures of a growing text."""

CONTROLS = {code: 0x2400 + code for code in range(32) if code not in (9, 10)}
CONTROLS |= {0x7F: 0x2421, **dict.fromkeys(range(0x80, 0xA0), 0xFFFD)}
"""Control characters -> pictures of them: a model must not steer the terminal."""

LONGEST_MARK = 12
"""A line that is longer shows whether it goes on with a list, such as `123456789. `."""

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_GOES_ON = re.compile(r"\s|[-*+](\s|$)|\d{1,9}([.)]|$)|$")


def safe(text: str) -> str:
    """A text that only shows itself."""
    return text.translate(CONTROLS)


def cuts(text: str) -> list[int]:
    """Where blocks end that no further text can change."""
    fence, at, blank, found = "", 0, False, []
    for line in text.splitlines(keepends=True):
        certain = len(line) > LONGEST_MARK or line.endswith("\n")
        if blank and certain and not fence and not _GOES_ON.match(line):
            found.append(at)
        fence = _fence_after(line, fence) if line.endswith("\n") else fence
        blank = not line.strip()
        at += len(line)
    return found


class _Shown:
    """Markdown after one empty line or none; of a text that grows, the end that fits."""

    def __init__(self, text: str, *, gap: bool, grows: bool = False) -> None:
        self._markdown = markdown(text)
        self._gap, self._grows = gap, grows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._markdown, options, pad=False)
        filled = [at for at, line in enumerate(lines) if any(part.text.strip() for part in line)]
        lines = lines[filled[0] : filled[-1] + 1] if filled else []
        if lines and self._gap:
            yield Segment.line()
        for line in lines[-max(console.height - 3, 1) :] if self._grows else lines:
            yield from line
            yield Segment.line()


def markdown(text: str) -> Markdown:
    """Markdown for a terminal; addresses of links are shown, not hidden."""
    return Markdown(_breaks(safe(text)), hyperlinks=False, code_theme="ansi_dark")


def _breaks(text: str) -> str:
    """Keep the ends of lines, as models mean them; two spaces say so in Markdown."""
    lines, fence = text.split("\n"), ""
    for at, line in enumerate(lines):
        fence = _fence_after(line, fence)
        if not fence and line.strip() and not line.endswith("\\"):
            lines[at] = f"{line}  "
    return "\n".join(lines)


def _fence_after(line: str, fence: str) -> str:
    """The marks of the block of code that goes on after a line; empty: there is none."""
    mark = _FENCE.match(line)
    if mark is None:
        return fence
    if not fence:
        return mark[1]
    closes = line.strip().startswith(fence) and not line.strip().strip(fence[0])
    return "" if closes else fence


class Writer:
    """Shows one answer while it grows; a context manager."""

    def __init__(self, console: Console, *, plain: bool = False) -> None:
        """Begin; a `plain` text is shown as it is, not as Markdown."""
        self._console, self._plain = console, plain
        self._text = ""
        self._drawn = 0.0
        self._thinking = False
        self._printed = False
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_thoughts()
        self._live.stop()
        if self._plain:
            self._console.print()
        elif self._text.strip():
            self._print(self._text)

    def think(self, text: str) -> None:
        """Add to the reasoning."""
        if not text:
            return
        self._thinking = True
        self._raw(text, style="dim italic")

    def write(self, text: str) -> None:
        """Add to the answer."""
        if not text:
            return
        self._end_thoughts()
        if self._plain:
            self._raw(text)
            return
        self._text += text
        if not self._live.is_started:
            self._live.start()
        if ends := cuts(self._text):
            self._print(self._text[: ends[-1]])
            self._text = self._text[ends[-1] :]
        elif time.monotonic() - self._drawn < FRAME_S:
            return
        self._drawn = time.monotonic()
        self._live.update(_Shown(self._text, gap=self._printed, grows=True), refresh=True)

    def _print(self, text: str) -> None:
        ends = cuts(text)
        for begin, end in zip([0, *ends], [*ends, len(text)], strict=True):
            self._console.print(_Shown(text[begin:end], gap=self._printed), end="")
            self._printed = True

    def _end_thoughts(self) -> None:
        if self._thinking:
            self._console.print("\n")
        self._thinking = False

    def _raw(self, text: str, style: str | None = None) -> None:
        self._console.print(
            safe(text), style=style, end="", markup=False, highlight=False, soft_wrap=True
        )


def columns(pairs: dict[str, str]) -> Iterator[str]:
    """Lines of two columns."""
    width = max(map(len, pairs))
    for name, text in pairs.items():
        yield f"  {name:<{width}}  {text}"
