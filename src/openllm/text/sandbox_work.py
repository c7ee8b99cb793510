# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The budget of a chat template, and the environment that spends it."""

from collections.abc import Iterator, MappingView, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_OUTPUT = 64_000_000
MAX_WORK = 2_000_000
CHARS = 128
"""Characters per unit of work."""

SEQUENCES: tuple[type, ...] = (list, tuple)
_SCALARS = (int, float, bool, type(None), Undefined)


class _Work:
    """What is left of a budget."""

    def __init__(self) -> None:
        self.left = MAX_WORK


_WORK: ContextVar[_Work] = ContextVar("work of a template")


@contextmanager
def budget() -> Iterator[None]:
    """Give what happens inside `MAX_WORK` units of work."""
    token = _WORK.set(_Work())
    try:
        yield
    finally:
        _WORK.reset(token)


def work_left() -> int:
    """Units of work that are left of the budget."""
    return _WORK.get().left


class Metered(ImmutableSandboxedEnvironment):
    """The sandbox of jinja2, with methods that pay for work and refuse too much of it.

    Each raises SecurityError if the budget is spent or a text or list would be too long.
    """

    def tick(self, units: int = 1) -> None:
        """Do so much work."""
        work = _WORK.get()
        work.left -= units
        if work.left < 0:
            raise SecurityError("it does too much work")

    def check_size(self, size: int) -> None:
        """Refuse to make a text or list of so many characters or entries."""
        if size > MAX_OUTPUT:
            raise SecurityError("it makes too long a text")

    def grow(self, size: int) -> None:
        """Make a text of so many characters."""
        self.check_size(size)
        self.tick(1 + size // CHARS)

    def sized(self, value: Any) -> Any:
        """Look through the entries of a value, which is returned."""
        size = len(value) if isinstance(value, Sized) else 0
        self.tick(1 + (size // CHARS if isinstance(value, str) else size))
        return value

    def weighed(self, value: Any, *, printable: bool = False) -> Any:
        """Look through a value and all that is in it; the value is returned."""
        waiting = [value]
        while waiting:
            item = self.sized(waiting.pop())
            if isinstance(item, dict):
                waiting += [*item.keys(), *item.values()]
            elif isinstance(item, (*SEQUENCES, MappingView)):
                waiting += item
            elif printable and not isinstance(item, (str, *_SCALARS)):
                raise SecurityError(f"it prints an object of type {type(item).__name__}")
        return value

    def printable(self, value: Any) -> Any:
        """A value that `str` can be called on without harm; it is returned."""
        return self.weighed(value, printable=True)
