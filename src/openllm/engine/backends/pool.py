# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Several models under one memory budget: loaded when needed, the longest unused freed first.

All methods belong to one event loop; models load in threads. Importable without torch.
"""

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from openllm.core.errors import BusyError, ConfigError, EngineError, OpenLLMError
from openllm.core.log import say, warn
from openllm.engine.backend import Backend, BackendInfo
from openllm.engine.backends.pool_state import Entry, Loader, ModelStatus, PoolStats, Signal

WORTH_COLLECTING = 2**20
"""Bytes from which on Python is asked to free them at once, for which everything else must wait."""


class ModelPool:
    """Models by name. `async with pool.lease(name) as backend` keeps one loaded while in use."""

    def __init__(
        self, loader: Loader, budget_bytes: int | None = None, *, patience: float = 30.0
    ) -> None:
        """Begin without models.

        Args:
            loader: loads them.
            budget_bytes: most memory of all loaded models with their caches; none: unlimited.
            patience: seconds that a load or unload waits for running requests to end.
        """
        self._loader = loader
        self._budget = budget_bytes
        self._patience = patience
        self._entries: dict[str, Entry] = {}
        self._stats = PoolStats(budget_bytes=budget_bytes)
        self._clock = itertools.count(1)
        self._changed = Signal()
        # who waits for room does so in turn, lest small models starve a large one
        self._turn = asyncio.Lock()

    def names(self) -> list[str]:
        """Of all models, loaded or not, in the order in which they were added; not of those that
        are being removed."""
        return [name for name, entry in self._entries.items() if not entry.removed]

    def stats(self) -> PoolStats:
        """Counters."""
        return replace(self._stats, used_bytes=self._used())

    def status(self) -> list[ModelStatus]:
        """Of each model."""
        return [entry.status() for entry in self._entries.values()]

    def info(self, name: str) -> BackendInfo | None:
        """What a model is, or was when it was last loaded; none before its first use.

        Raises:
            ConfigError: there is no such model.
        """
        entry = self._find(name)
        return entry.info if entry.backend is None else entry.backend.info

    def loaded(self) -> dict[str, Backend]:
        """The backends that are loaded now, to read their counters; use `lease` to run them."""
        return {name: e.backend for name, e in self._entries.items() if e.backend is not None}

    def add(self, name: str, source: str, *, pinned: bool = False) -> None:
        """Name a source; it is loaded on first use.

        Raises:
            ConfigError: the name is taken.
        """
        if name in self._entries:
            raise ConfigError(f"there is a model '{name}' already; give another name")
        self._entries[name] = Entry(name, source, pinned)

    def pin(self, name: str, pinned: bool = True) -> None:
        """Never free a model to make room for another, or do so again.

        Raises:
            ConfigError: there is no such model.
        """
        self._find(name).pinned = pinned
        self._changed.send()

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[Backend]:
        """Use a model, loading it if needed; it stays loaded until the block ends.

        Raises:
            ConfigError: there is no such model.
            BusyError: models in use leave no room for it.
            EngineError: it is larger than the budget.
            OpenLLMError: it cannot be loaded; the next lease tries again.
        """
        entry = self._find(name)
        backend = await self._enter(entry)
        try:
            yield backend
        finally:
            entry.users -= 1
            entry.last_use = next(self._clock)
            self._changed.send()

    async def load(self, name: str) -> None:
        """Load a model now. Raises as `lease` does."""
        async with self.lease(name):
            pass

    async def unload(self, name: str) -> None:
        """Free a model once its running requests have ended; the next use loads it again.

        Raises:
            ConfigError: there is no such model.
            BusyError: its requests do not end.
        """
        await self._unload(self._find(name))

    async def remove(self, name: str) -> None:
        """Forget a model; raises as `unload` does, and then keeps it."""
        entry = self._find(name)
        entry.removed = True  # from now on, nobody begins to use it
        try:
            await self._unload(entry)
        except BaseException:  # cancelled or failed: it stays, and may be used again
            entry.removed = False
            raise
        del self._entries[name]

    async def close(self) -> None:
        """Free all models, whether in use or not, and forget them."""
        entries = list(self._entries.values())
        self._entries.clear()
        for entry in entries:
            entry.removed = True
        loading = [entry.loading for entry in entries if entry.loading is not None]
        await asyncio.gather(*loading, return_exceptions=True)
        await asyncio.gather(*map(self._free, entries))

    async def _unload(self, entry: Entry) -> None:
        deadline = self._now() + self._patience
        while entry.users or entry.waiting or entry.loading is not None:
            if self._now() >= deadline:
                raise BusyError(f"the model '{entry.name}' is in use; try again later")
            await self._changed.wait(deadline - self._now())
        await self._free(entry)

    def _find(self, name: str) -> Entry:
        entry = self._entries.get(name)
        if entry is None or entry.removed:
            raise ConfigError(f"there is no model '{name}'; there is: {', '.join(self.names())}")
        return entry

    async def _enter(self, entry: Entry) -> Backend:
        entry.waiting += 1
        try:
            if entry.backend is not None and not entry.backend.healthy() and not entry.users:
                warn(f"the model '{entry.name}' has failed; loading it again")
                await self._free(entry)
            elif entry.backend is not None:
                self._stats = replace(self._stats, hits=self._stats.hits + 1)
            while entry.backend is None or entry.freeing is not None:
                await self._free(entry)
                if entry.removed:
                    raise ConfigError(f"the model '{entry.name}' was removed; use another")
                await self._load_once(entry)
            entry.users += 1
            entry.last_use = next(self._clock)
            return entry.backend
        finally:
            entry.waiting -= 1

    async def _load_once(self, entry: Entry) -> None:
        """Load, or wait until another has; goes on if the caller is cancelled."""
        if entry.loading is None:
            entry.loading = asyncio.create_task(self._load(entry))
            entry.loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(entry.loading)

    async def _load(self, entry: Entry) -> None:
        entry.error = None
        try:
            size = await asyncio.to_thread(self._loader.num_bytes, entry.source)
            async with self._turn:
                await self._make_room(entry, size, self._patience)
                entry.num_bytes = size
            say(f"loading the model '{entry.name}' from {entry.source}")
            backend = await asyncio.to_thread(self._loader.load, entry.name, entry.source)
            entry.num_bytes = backend.info.num_bytes + backend.info.cache_bytes
            try:
                await self._make_room(entry, 0, 0)
            except EngineError:
                await backend.close()
                raise
        except Exception as error:  # whatever a loader raises is counted, told and raised again
            entry.num_bytes = 0
            known = isinstance(error, OpenLLMError)
            entry.error = str(error) if known else f"{type(error).__name__}: {error}"
            self._stats = replace(self._stats, failures=self._stats.failures + 1)
            raise
        else:
            entry.backend = backend
            self._stats = replace(self._stats, loads=self._stats.loads + 1)
        finally:
            entry.loading = None
            self._changed.send()

    async def _make_room(self, entry: Entry, size: int, patience: float) -> None:
        """Free idle models until `size` bytes more fit; waits for those in use."""
        if self._budget is None:
            return
        deadline = self._now() + patience
        while self._used() + size > self._budget:
            pinned = sum(e.num_bytes for e in self._entries.values() if e.pinned and e is not entry)
            least = pinned + max(size, entry.num_bytes)
            if least > self._budget:
                raise EngineError(
                    f"the model '{entry.name}' does not fit: with pinned models it takes "
                    f"{_mebibytes(least)}, but {_mebibytes(self._budget)} are allowed; "
                    "allow more memory, or unpin a model"
                )
            idle = [e for e in self._entries.values() if e.idle and e.num_bytes]
            if self._used() - sum(e.num_bytes for e in idle) + size <= self._budget:
                await self._free(min(idle, key=lambda e: e.last_use))
                self._stats = replace(self._stats, evictions=self._stats.evictions + 1)
            elif self._now() >= deadline:
                raise BusyError(
                    f"there is no room for the model '{entry.name}' while others are in use; "
                    "try again later"
                )
            else:
                await self._changed.wait(deadline - self._now())

    async def _free(self, entry: Entry) -> None:
        """Close a model if it is loaded, to the end even if the caller is cancelled."""
        if entry.freeing is None and entry.backend is not None:
            entry.freeing = asyncio.create_task(self._close(entry, entry.backend))
            entry.backend, entry.info = None, entry.backend.info
        if entry.freeing is not None:
            await asyncio.shield(entry.freeing)

    async def _close(self, entry: Entry, backend: Backend) -> None:
        try:
            await backend.close()
            del backend
            if entry.num_bytes >= WORTH_COLLECTING:
                await asyncio.to_thread(gc.collect)  # models are cycles of objects
        finally:
            entry.num_bytes = 0
            entry.freeing = None
            self._changed.send()

    def _used(self) -> int:
        return sum(entry.num_bytes for entry in self._entries.values())

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
