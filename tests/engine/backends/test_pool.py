# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The pool keeps its budget, frees nothing that is in use, and survives models that do not load."""

import asyncio
import random
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest

from openllm.core.errors import BusyError, CheckpointError, ConfigError, EngineError
from openllm.engine.backend import BackendInfo
from openllm.engine.backends.pool import ModelPool


class FakeBackend:
    """Takes memory from the machine until it is closed."""

    def __init__(self, machine: "Machine", name: str, size: int) -> None:
        self.info = BackendInfo(name, "fake", num_bytes=size - 1, cache_bytes=1)
        self.machine, self.size = machine, size
        self.closed = self.sick = False

    def healthy(self) -> bool:
        return not self.sick

    async def close(self) -> None:
        assert not self.closed
        await asyncio.sleep(0)
        self.closed = True
        with self.machine.lock:
            self.machine.used -= self.size


class Machine:
    """A loader whose sources are sizes, such as `3`, or `3>5` if 3 is a wrong estimate of 5."""

    def __init__(self) -> None:
        self.used = self.most = 0
        self.loads: list[str] = []
        self.broken: set[str] = set()
        self.gate: threading.Event | None = None
        self.lock = threading.Lock()

    def num_bytes(self, source: str) -> int:
        return int(source.split(">")[0])

    def load(self, name: str, source: str) -> Any:
        if self.gate is not None:
            assert self.gate.wait(10)
        if name in self.broken:
            raise CheckpointError(f"{source} is damaged; copy it again")
        size = int(source.split(">")[-1])
        with self.lock:
            self.loads.append(name)
            self.used += size
            self.most = max(self.most, self.used)
        return FakeBackend(self, name, size)


def make(
    budget: int | None, *, patience: float = 10.0, **sources: str
) -> tuple[ModelPool, Machine]:
    machine = Machine()
    pool = ModelPool(machine, budget, patience=patience)
    for name, source in sources.items():
        pool.add(name, source)
    return pool, machine


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 60))


def test_loads_on_first_use_and_keeps() -> None:
    async def main() -> None:
        pool, machine = make(10, a="3", b="4")
        assert (machine.loads, pool.info("a")) == ([], None)
        async with pool.lease("a") as first:
            assert pool.info("a") is first.info
            assert first.info.name == "a"
        async with pool.lease("a") as second:
            assert second is first
        assert machine.loads == ["a"]
        stats = pool.stats()
        assert (stats.loads, stats.hits, stats.evictions, stats.used_bytes) == (1, 1, 0, 3)
        assert list(pool.loaded()) == ["a"]
        await pool.close()
        assert machine.used == 0

    run(main())


def test_the_longest_unused_goes_first() -> None:
    async def main() -> None:
        pool, machine = make(10, a="4", b="4", c="4")
        for name in ("a", "b", "a", "c"):
            await pool.load(name)
        assert [one.name for one in pool.status() if one.state == "loaded"] == ["a", "c"]
        assert (pool.stats().evictions, machine.used) == (1, 8)
        await pool.close()

    run(main())


def test_many_wait_for_one_load() -> None:
    async def main() -> None:
        pool, machine = make(10, a="4")

        async def use() -> Any:
            async with pool.lease("a") as backend:
                return backend

        machine.gate = threading.Event()
        tasks = [asyncio.create_task(use()) for _ in range(20)]
        while pool.status()[0].state != "loading":
            await asyncio.sleep(0)
        tasks[0].cancel()  # who asked first goes away; the others still get it
        machine.gate.set()
        found = await asyncio.gather(*tasks[1:])
        assert machine.loads == ["a"]
        assert len(set(map(id, found))) == 1
        await pool.close()

    run(main())


def test_nothing_in_use_is_freed() -> None:
    async def main() -> None:
        pool, _ = make(10, patience=0.05, a="6", b="6")
        async with pool.lease("a") as backend:
            with pytest.raises(BusyError, match="no room for the model 'b'") as caught:
                await pool.load("b")
            assert caught.value.retry_after > 0
            assert not backend.closed
        await pool.load("b")
        assert backend.closed
        await pool.close()

    run(main())


def test_a_load_waits_for_room() -> None:
    async def main() -> None:
        pool, machine = make(10, a="6", b="6")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(pool.lease("a"))
            waiting = asyncio.create_task(pool.load("b"))
            while not pool._turn.locked():
                await asyncio.sleep(0)
        await waiting
        assert (machine.loads, machine.most) == (["a", "b"], 6)
        await pool.close()

    run(main())


def test_idle_models_stay_when_freeing_them_is_not_enough() -> None:
    async def main() -> None:
        pool, _ = make(10, patience=0.01, busy="6", idle="2", big="8")
        await pool.load("idle")
        async with pool.lease("busy"):
            with pytest.raises(BusyError):
                await pool.load("big")
        assert set(pool.loaded()) == {"busy", "idle"}
        await pool.close()

    run(main())


def test_pinned_models_stay() -> None:
    async def main() -> None:
        pool, _ = make(10, a="6", b="6", c="3", d="3")
        pool.pin("a")
        await pool.load("a")
        for name in ("c", "d"):
            await pool.load(name)
        assert set(pool.loaded()) == {"a", "d"}
        with pytest.raises(EngineError, match=r"'b' does not fit.*unpin a model"):
            await pool.load("b")
        pool.pin("a", False)
        await pool.load("b")
        assert "a" not in pool.loaded()
        await pool.close()

    run(main())


def test_too_large() -> None:
    async def main() -> None:
        pool, machine = make(10, a="11", b="3>12", c="3>6", d="6")
        for name in ("a", "b"):
            with pytest.raises(EngineError, match=f"'{name}' does not fit"):
                await pool.load(name)
        assert (machine.used, pool.stats().used_bytes, pool.stats().failures) == (0, 0, 2)
        # larger than estimated: others make room after it is loaded
        await pool.load("d")
        await pool.load("c")
        assert (list(pool.loaded()), machine.used) == (["c"], 6)
        await pool.close()

    run(main())


def test_failed_loads_are_tried_again() -> None:
    async def main() -> None:
        pool, machine = make(10, a="4", b="8")
        machine.broken.add("a")
        results = await asyncio.gather(*[pool.load("a") for _ in range(3)], return_exceptions=True)
        assert [type(one) for one in results] == [CheckpointError] * 3
        status = pool.status()[0]
        assert (status.state, status.error) == ("failed", "4 is damaged; copy it again")
        assert pool.stats().used_bytes == 0
        await pool.load("b")  # the room that was kept for it is free again
        machine.broken.clear()
        await pool.load("a")
        assert pool.status()[0].error is None
        await pool.close()

    run(main())


def test_a_sick_model_is_loaded_again() -> None:
    async def main() -> None:
        pool, machine = make(10, a="4")
        async with pool.lease("a") as first:
            first.sick = True
            async with pool.lease("a") as same:
                assert same is first  # others still use it
        async with pool.lease("a") as second:
            assert first.closed and second is not first
        assert machine.used == 4
        await pool.close()

    run(main())


def test_unload_and_remove() -> None:
    async def main() -> None:
        pool, machine = make(None, patience=0.02, a="4", b="4")
        await pool.load("a")
        await pool.unload("a")
        assert (machine.used, pool.status()[0].state) == (0, "unloaded")
        info = pool.info("a")
        assert info is not None and info.name == "a", "it is still known"
        async with pool.lease("a"):
            with pytest.raises(BusyError, match="'a' is in use"):
                await pool.unload("a")
            with pytest.raises(BusyError, match="'a' is in use"):
                await pool.remove("a")
        assert pool.names() == ["a", "b"]
        await pool.load("a")
        await pool.remove("a")
        assert (machine.used, pool.names()) == (0, ["b"])
        with pytest.raises(ConfigError, match="there is no model 'a'; there is: b"):
            await pool.load("a")
        pool.add("a", "2")
        with pytest.raises(ConfigError, match="'a' already"):
            pool.add("a", "2")
        await pool.load("a")
        await pool.close()

    run(main())


def test_nobody_gets_a_model_that_is_being_removed() -> None:
    async def main() -> None:
        pool, machine = make(None, a="4")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(pool.lease("a"))
            removal = asyncio.create_task(pool.remove("a"))
            await asyncio.sleep(0)
            with pytest.raises(ConfigError):
                await pool.load("a")
        await removal
        assert machine.used == 0

    run(main())


def test_close_waits_for_loads() -> None:
    async def main() -> None:
        pool, machine = make(None, a="4")
        machine.gate = threading.Event()
        loading = asyncio.create_task(pool.load("a"))
        while pool.status()[0].state != "loading":
            await asyncio.sleep(0)
        closing = asyncio.create_task(pool.close())
        await asyncio.sleep(0)
        machine.gate.set()
        await closing
        await asyncio.gather(loading, return_exceptions=True)
        assert machine.used == 0

    run(main())


@pytest.mark.parametrize("seed", range(4))
def test_random_histories(seed: int) -> None:
    """Budget kept at every moment, nothing freed in use, nobody waits forever, nothing leaks."""
    rng = random.Random(seed)
    budget = 20

    async def user(pool: ModelPool, machine: Machine) -> None:
        for _ in range(40):
            name = rng.choice(pool.names())
            action = rng.random()
            try:
                if action < 0.03:
                    pool.pin(name, rng.random() < 0.3)
                elif action < 0.08:
                    await pool.unload(name)
                elif action < 0.12:
                    machine.broken ^= {name}
                elif action < 0.15:
                    async with asyncio.timeout(0.002):
                        await pool.load(name)
                else:
                    async with pool.lease(name) as backend:
                        for _ in range(rng.randrange(4)):
                            await asyncio.sleep(0)
                            assert not backend.closed, "freed in use"
                            assert pool.stats().used_bytes <= budget
                        backend.sick = rng.random() < 0.05
            except (EngineError, CheckpointError, TimeoutError):
                pass

    async def main() -> None:
        sizes = {f"m{i}": str(rng.randint(1, 12)) for i in range(8)}
        pool, machine = make(budget, patience=0.2, **sizes)
        await asyncio.gather(*[user(pool, machine) for _ in range(12)])
        machine.broken.clear()
        for name in pool.names():
            pool.pin(name, False)
        for name in pool.names():
            await pool.load(name)
        stats = pool.stats()
        assert machine.most <= budget
        assert (
            machine.used
            == stats.used_bytes
            == sum(backend.size for backend in pool.loaded().values())
        )
        assert stats.loads == len(machine.loads)
        assert min(stats.loads, stats.hits, stats.evictions, stats.failures) > 0
        assert all(one.users == 0 for one in pool.status())
        await pool.close()
        assert machine.used == 0

    run(main())
