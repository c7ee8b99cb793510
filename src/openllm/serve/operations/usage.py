# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Daily use per key, kept on disk so that a restart does not give everybody a new day.

Servers that share the file share the quotas: each adds what is new to what it finds there.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from openllm.core.errors import ConfigError
from openllm.core.files import locked, read_json
from openllm.serve.operations.keys import write_private

MEND = "remove it; today's use of all keys then begins again"
FLUSH_S = 1.0
"""Seconds of use that a crash may forget."""


@dataclass
class Use:
    """What one key has used on one day."""

    requests: int = 0
    tokens: int = 0

    def add(self, other: "Use") -> None:
        """Count more."""
        self.requests += other.requests
        self.tokens += other.tokens


Uses = dict[str, Use]
"""By id of the key."""


class UsageBook:
    """Counts requests and tokens per key and day (UTC).

    Args:
        path: where it is kept; none: only in memory.
        now: the time.

    Raises:
        ConfigError: the file is damaged.
    """

    def __init__(
        self,
        path: Path | str | None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.path = Path(path) if path is not None else None
        self._now = now
        self._day = self._today()
        self._new: Uses = {}  # not in the file yet
        day, uses = self._read()
        self._uses = uses if day == self._day else {}
        self._written = time.monotonic()
        self._lock = threading.Lock()  # requests are counted while a thread writes

    def of(self, key_id: str) -> Use:
        """Today's use of a key, by other servers too, as far as they have written it."""
        with self._lock:
            self._begin_day()
            return self._uses.setdefault(key_id, Use())

    def add(self, key_id: str, *, requests: int = 0, tokens: int = 0) -> None:
        """Count more use."""
        more = Use(requests, tokens)
        with self._lock:
            self._begin_day()
            for uses in (self._uses, self._new):
                uses.setdefault(key_id, Use()).add(more)

    def seconds_left(self) -> float:
        """Until the next day begins."""
        now = self._now()
        midnight = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
        return (midnight - now).total_seconds()

    def due(self) -> bool:
        """Whether there is something to write, and the last time is long enough ago."""
        return bool(self._new) and time.monotonic() - self._written >= FLUSH_S

    def flush(self) -> None:
        """Write what is new. Raises as `write` does."""
        if self._new:
            self.write()

    def write(self) -> None:
        """Add what is new to the file, and take note of what others have added; from any thread.

        Raises:
            ConfigError: the file is damaged.
            StorageError: it cannot be written; what is new is kept for the next time.
        """
        with self._lock:
            self._begin_day()
            day, new, self._new = self._day, self._new, {}
            self._written = time.monotonic()
        if self.path is None:
            return
        try:
            with locked(self.path.with_name(f".{self.path.name}.lock")):
                found_day, found = self._read()
                if found_day > day:  # it is midnight, and another server was first
                    return
                found = _sum(found if found_day == day else {}, new)
                facts = {name: [use.requests, use.tokens] for name, use in found.items()}
                write_private(self.path, {"day": day, "keys": facts})
        except BaseException:  # whatever it was, nothing is forgotten
            with self._lock:
                if day == self._day:
                    self._new = _sum(new, self._new)
            raise
        with self._lock:
            if day == self._day:
                self._uses = _sum(found, self._new)

    def _begin_day(self) -> None:
        if (today := self._today()) != self._day:
            self._day, self._uses, self._new = today, {}, {}

    def _today(self) -> str:
        return self._now().date().isoformat()

    def _read(self) -> tuple[str, Uses]:
        """The day of the file, and its uses; without a file, no day."""
        if self.path is None or not self.path.exists():
            return "", {}
        values = read_json(self.path, ConfigError, MEND)
        try:
            return str(values["day"]), {
                str(name): Use(int(requests), int(tokens))
                for name, (requests, tokens) in values["keys"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ConfigError(f"{self.path} is damaged; {MEND}") from None


def _sum(*parts: Uses) -> Uses:
    total: Uses = {}
    for part in parts:
        for name, use in part.items():
            total.setdefault(name, Use()).add(use)
    return total
