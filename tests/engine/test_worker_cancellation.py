# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The engine's thread outlives its callers, whenever they leave, and leaves nobody waiting."""

import asyncio
import random
import time
from typing import Any

import pytest

from openllm.core.errors import ConfigError, EngineError
from openllm.engine.backends.echo import EchoEngine
from openllm.engine.backends.worker import EngineWorker
from openllm.engine.request import Request, SamplingParams
from openllm.text.byte_tokenizer import ByteTokenizer


class Engine(EchoEngine):
    """Echo that takes its time to begin and to compute."""

    def __init__(self, add_s: float = 0.0, step_s: float = 0.0) -> None:
        super().__init__(ByteTokenizer())
        self.add_s, self.step_s = add_s, step_s

    def add(self, request: Request) -> None:
        time.sleep(self.add_s)
        super().add(request)

    def step(self) -> list[Any]:
        time.sleep(self.step_s)
        return super().step()


def a_request(name: str, size: int = 20) -> Request:
    return Request(name, [65] * size, SamplingParams(max_new_tokens=size))


async def read(worker: EngineWorker, request: Request) -> str:
    return "".join([update.text async for update in worker.stream(request)])


async def idle(worker: EngineWorker) -> None:
    """Wait until the engine has nothing to do."""
    async with asyncio.timeout(10):
        while await worker.call(worker.engine.has_work):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("wait", [0.0, 0.005, 0.03])
def test_who_leaves_while_the_request_begins_leaves_nothing_behind(wait: float) -> None:
    """Before the thread has seen the request, while it adds it, and just after."""

    async def run() -> None:
        worker = EngineWorker(Engine(add_s=0.02))
        busy = asyncio.create_task(read(worker, a_request("first")))
        await asyncio.sleep(0.005)
        task = asyncio.create_task(read(worker, a_request("second", 4000)))
        await asyncio.sleep(wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await busy == "A" * 20
        await idle(worker)
        assert worker.healthy() and not worker._boxes
        assert await read(worker, a_request("third")) == "A" * 20
        worker.close()

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(5))
def test_the_thread_survives_random_cancellations(seed: int) -> None:
    rng = random.Random(seed)

    async def run() -> None:
        worker = EngineWorker(Engine(add_s=0.0005, step_s=0.0005))
        tasks = []
        for index in range(150):
            request = a_request(str(index), rng.randint(1, 40))
            tasks.append((request, asyncio.create_task(read(worker, request))))
            if rng.random() < 0.4:
                rng.choice(tasks)[1].cancel()
            if rng.random() < 0.3:
                await asyncio.sleep(rng.random() * 0.003)
        await asyncio.wait([task for _, task in tasks], timeout=20)
        for request, task in tasks:
            assert task.done()
            assert task.cancelled() or task.result() == "A" * len(request.prompt)
        await idle(worker)
        assert worker.healthy() and not worker._boxes
        worker.close()

    asyncio.run(run())


def test_a_refused_request_is_told_and_forgotten() -> None:
    async def run() -> None:
        worker = EngineWorker(Engine())
        with pytest.raises(ConfigError):
            await read(worker, a_request("long", 99_999))
        assert await read(worker, a_request("next")) == "A" * 20
        worker.close()

    asyncio.run(run())


def test_a_worker_that_stops_answers_all_who_wait() -> None:
    """Requests that run, requests that have not begun, and calls."""

    async def run() -> list[Any]:
        worker = EngineWorker(Engine(add_s=0.02, step_s=0.02))
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(read(worker, a_request(str(index), 500))) for index in range(6)
        ]
        call = asyncio.create_task(worker.call(lambda: None))
        await asyncio.sleep(0.03)
        await asyncio.to_thread(worker.close)
        await asyncio.wait([call], timeout=10)
        assert call.done()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)

    assert all(isinstance(result, EngineError) for result in asyncio.run(run()))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_answers_all_who_wait() -> None:
    engine = Engine(step_s=0.01)

    async def run() -> list[Any]:
        worker = EngineWorker(engine)
        tasks = [asyncio.create_task(read(worker, a_request(str(i), 500))) for i in range(4)]
        await asyncio.sleep(0.03)

        def die() -> list[Any]:
            raise SystemExit  # as no error of an engine does

        engine.step = die  # type: ignore[method-assign]
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert not worker.healthy()
        with pytest.raises(EngineError, match="has stopped"):
            await read(worker, a_request("late"))
        worker.close()  # its thread ends within this test
        return results

    assert all(isinstance(result, EngineError) for result in asyncio.run(run()))
