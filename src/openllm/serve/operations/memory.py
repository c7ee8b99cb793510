# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Gives memory back to the system after large requests; C libraries keep it for themselves."""

import asyncio
import ctypes
from collections.abc import Callable

LARGE_BYTES = 128 << 10
"""Size of a body that is worth it: reading it as JSON and tokens takes many times as much."""

DELAY_S = 1.0
"""Many large requests at the same time are one reason to trim, not many."""


def trimmer() -> Callable[[], None] | None:
    """What returns free memory to the system; none if the C library keeps none, or cannot."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None

    def run() -> None:
        trim(0)

    return run


class Memory:
    """Trims a moment after a large request has ended, in a thread."""

    def __init__(self, trim: Callable[[], None] | None) -> None:
        self._trim = trim
        self._due = False

    def request_ended(self, size: int) -> None:
        """A request with a body of this size is over."""
        if size >= LARGE_BYTES and self._trim is not None and not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(DELAY_S, self._begin)

    def _begin(self) -> None:
        assert self._trim is not None
        self._due = False
        asyncio.get_running_loop().run_in_executor(None, self._trim)
