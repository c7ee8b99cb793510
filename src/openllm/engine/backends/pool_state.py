# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What a pool of models needs, knows and tells. Importable without torch."""

import asyncio
from dataclasses import dataclass, field
from typing import Literal, Protocol

from openllm.engine.backend import Backend, BackendInfo


class Loader(Protocol):
    """Turns a source, such as a folder, into a backend. Called in threads."""

    def num_bytes(self, source: str) -> int:
        """Memory that a source will take, as well as can be told without loading it."""
        ...

    def load(self, name: str, source: str) -> Backend:
        """Load a source; requests will call it `name`."""
        ...


@dataclass(frozen=True)
class PoolStats:
    """Totals since a pool began, and memory now.

    Attributes:
        hits: uses of a model that was loaded already.
        loads: models loaded.
        failures: loads that failed.
        evictions: models freed to make room.
        used_bytes: memory of loaded models, and of those that are being loaded.
        budget_bytes: none if unlimited.
    """

    hits: int = 0
    loads: int = 0
    failures: int = 0
    evictions: int = 0
    used_bytes: int = 0
    budget_bytes: int | None = None


@dataclass(frozen=True)
class ModelStatus:
    """A model as administrators see it; `error` is why it could not be loaded the last time."""

    name: str
    source: str
    state: Literal["unloaded", "loading", "loaded", "failed", "unloading"]
    num_bytes: int
    users: int
    pinned: bool
    error: str | None = None


@dataclass(eq=False)
class Entry:
    """A model; `waiting` and `users` are leases before and after they got it."""

    name: str
    source: str
    pinned: bool
    info: BackendInfo | None = None
    backend: Backend | None = None
    num_bytes: int = 0
    waiting: int = 0
    users: int = 0
    last_use: int = 0
    error: str | None = None
    removed: bool = False
    loading: "asyncio.Task[None] | None" = None
    freeing: "asyncio.Task[None] | None" = None

    @property
    def idle(self) -> bool:
        """Whether it may be freed to make room."""
        return self.backend is not None and not (self.users or self.waiting or self.pinned)

    def status(self) -> ModelStatus:
        """As administrators see it."""
        state = "unloaded" if self.error is None else "failed"
        if self.loading is not None:
            state = "loading"
        elif self.freeing is not None:
            state = "unloading"
        elif self.backend is not None:
            state = "loaded"
        return ModelStatus(
            self.name, self.source, state, self.num_bytes, self.users, self.pinned, self.error
        )


@dataclass
class Signal:
    """Wakes all who wait for a change."""

    _event: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self) -> None:
        """Wake them."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return at the next change, or after some time."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return
