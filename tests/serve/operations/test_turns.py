# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Back-pressure: no turn is lost or given twice, whoever leaves when."""

import asyncio
import random
from typing import Any

import pytest
from tests.serve.asgi import Reply, ask

from openllm.serve.operations.config import LimitSettings
from openllm.serve.operations.refusal import Refusal
from openllm.serve.operations.turns import BackPressure, Turns

WORK = "/v1/completions"


def turns_of(running: int, queue: int, timeout: float = 60) -> Turns:
    return Turns(LimitSettings(max_running=running, max_queue=queue, queue_timeout_s=timeout))


def test_turns_are_given_in_the_order_of_arrival() -> None:
    order: list[int] = []

    async def one(turns: Turns, index: int) -> None:
        await turns.take()
        order.append(index)
        await asyncio.sleep(0)
        turns.give_back(0.1)

    async def run() -> None:
        turns = turns_of(2, 100)
        await asyncio.gather(*(one(turns, index) for index in range(50)))
        assert (turns.running, turns.waiting) == (0, 0)

    asyncio.run(run())
    assert order == list(range(50))


def test_a_full_queue_is_refused_with_retry_after() -> None:
    gate = asyncio.Event()

    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> list[Reply]:
        app = BackPressure(endpoint, turns_of(2, 3))
        tasks = [asyncio.create_task(ask(app, "POST", WORK)) for _ in range(8)]
        await asyncio.sleep(0.01)
        free = await asyncio.wait_for(ask(_open(app), "GET", "/v1/models"), 1)
        assert free.status == 200
        gate.set()
        return list(await asyncio.gather(*tasks))

    def _open(app: BackPressure) -> BackPressure:
        async def quick(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        return BackPressure(quick, app.turns)

    replies = asyncio.run(run())
    assert sorted(reply.status or 0 for reply in replies) == [200] * 5 + [503] * 3
    refused = next(reply for reply in replies if reply.status == 503)
    assert refused.code == "overloaded" and int(refused.header("retry-after") or 0) >= 1


def test_who_waits_too_long_gets_a_503_and_no_turn_is_lost() -> None:
    async def run() -> None:
        turns = turns_of(1, 5, timeout=0.01)
        await turns.take()
        with pytest.raises(Refusal) as caught:
            await turns.take()
        assert caught.value.status == 503
        assert (turns.running, turns.waiting) == (1, 0)
        turns.give_back(1)
        assert turns.running == 0

    asyncio.run(run())


def test_closed_turns_are_refused() -> None:
    async def run() -> None:
        turns = turns_of(1, 5)
        turns.open = False
        with pytest.raises(Refusal) as caught:
            await turns.take()
        assert (caught.value.status, caught.value.code) == (503, "draining")

    asyncio.run(run())


def test_retry_after_follows_the_queue() -> None:
    turns = turns_of(2, 1000)
    turns._mean_s = 10
    assert turns.retry_s() == 5
    turns._queue.extend(None for _ in range(9))  # type: ignore[arg-type]
    assert turns.retry_s() == 50
    turns._queue.extend(None for _ in range(900))  # type: ignore[arg-type]
    assert turns.retry_s() == 60


@pytest.mark.integration
@pytest.mark.parametrize("seed", range(20))
def test_random_histories_keep_count(seed: int) -> None:
    """Requests that end, are cancelled while they wait or run, or time out, in any order."""
    rng = random.Random(seed)

    async def one(turns: Turns, running: list[int]) -> None:
        await turns.take()
        running.append(1)
        assert len(running) <= turns.settings.max_running
        try:
            await asyncio.sleep(rng.random() * 0.002)
        finally:
            running.pop()
            turns.give_back(0.001)

    async def run() -> None:
        turns, running = turns_of(3, 20, timeout=0.003), []
        tasks = []
        for _ in range(300):
            tasks.append(asyncio.create_task(one(turns, running)))
            if rng.random() < 0.3:
                rng.choice(tasks).cancel()
            if rng.random() < 0.5:
                await asyncio.sleep(rng.random() * 0.001)
        await asyncio.gather(*tasks, return_exceptions=True)
        errors = [task.exception() for task in tasks if not task.cancelled() and task.exception()]
        assert all(isinstance(error, Refusal) for error in errors)
        assert (turns.running, turns.waiting) == (0, 0)

    asyncio.run(run())
