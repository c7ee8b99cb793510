# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Daily use per key, kept on disk so that a restart does not give everybody a new day."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from openllm.core.errors import ConfigError
from openllm.core.files import read_json
from openllm.serve.keys import write_private

MEND = "remove it; today's use of all keys then begins again"
FLUSH_S = 1.0
"""Seconds of use that a crash may forget."""


@dataclass
class Use:
    """What one key has used on one day."""

    requests: int = 0
    tokens: int = 0


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
        self._uses: dict[str, Use] = {}
        self._changed = False
        self._written = time.monotonic()
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def of(self, key_id: str) -> Use:
        """Today's use of a key."""
        today = self._today()
        if today != self._day:
            self._day, self._uses, self._changed = today, {}, True
        return self._uses.setdefault(key_id, Use())

    def add(self, key_id: str, *, requests: int = 0, tokens: int = 0) -> None:
        """Count more use."""
        use = self.of(key_id)
        use.requests += requests
        use.tokens += tokens
        self._changed = True

    def seconds_left(self) -> float:
        """Until the next day begins."""
        now = self._now()
        midnight = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
        return (midnight - now).total_seconds()

    def due(self) -> bool:
        """Whether there is something to write, and the last time is long enough ago."""
        return self._changed and time.monotonic() - self._written >= FLUSH_S

    def flush(self) -> None:
        """Write what has changed.

        Raises:
            StorageError: it cannot be written.
        """
        if self._changed:
            self.write()

    def write(self) -> None:
        """Write today's use.

        Raises:
            StorageError: it cannot be written.
        """
        self._changed, self._written = False, time.monotonic()
        if self.path is not None:
            uses = {name: [use.requests, use.tokens] for name, use in list(self._uses.items())}
            write_private(self.path, {"day": self._day, "keys": uses})

    def _today(self) -> str:
        return self._now().date().isoformat()

    def _read(self, path: Path) -> None:
        values = read_json(path, ConfigError, MEND)
        if values.get("day") != self._day:
            return
        try:
            for name, (requests, tokens) in values["keys"].items():
                self._uses[str(name)] = Use(int(requests), int(tokens))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ConfigError(f"{path} is damaged; {MEND}") from None
