# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What a pool of models needs, and what it tells about itself. Importable without torch."""

from dataclasses import dataclass
from typing import Literal, Protocol

from openllm.engine.backend import Backend


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
