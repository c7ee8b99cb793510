# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The engine's thread, and the event loops that it serves."""

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.engine.engines import make_llm

from openllm.core.errors import ConfigError, EngineError
from openllm.engine.backends.echo import EchoEngine
from openllm.engine.backends.worker import MAX_FAILURES, EngineWorker
from openllm.engine.request import Request, SamplingParams, Update
from openllm.text.byte_tokenizer import ByteTokenizer
from openllm.text.load import load_tokenizer

PROMPT = tuple(b"Anna found a lamp.")
PARAMS = SamplingParams(max_new_tokens=2000)


class Troubled(EchoEngine):
    """Its steps fail as often as they are told to; it may not be cleared either."""

    def __init__(self) -> None:
        super().__init__(ByteTokenizer())
        self.failures = 0
        self.clears = True
        self.pause = 0.0
        self.goes_on = threading.Event()
        self.goes_on.set()

    def step(self) -> list[Update]:
        time.sleep(self.pause)
        self.goes_on.wait()
        if self.failures:
            self.failures -= 1
            raise RuntimeError("out of memory")
        return super().step()

    def reset(self) -> None:
        if not self.clears:
            raise RuntimeError("all is lost")
        super().reset()


@pytest.fixture
def engine() -> Troubled:
    return Troubled()


@pytest.fixture
def worker(engine: Troubled) -> Iterator[EngineWorker]:
    made = EngineWorker(engine)
    yield made
    made.close()


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """To its end, or to a failure where it would wait for ever."""
    return asyncio.run(asyncio.wait_for(main, 60))


async def text(worker: EngineWorker, name: str, prompt: tuple[int, ...] = PROMPT) -> str:
    updates = [update async for update in worker.stream(Request(name, prompt, PARAMS))]
    return "".join(update.text for update in updates)


class Held:
    """Holds the engine's thread inside a call."""

    def __init__(self, worker: EngineWorker) -> None:
        self._inside, self._release = threading.Event(), threading.Event()
        self.call = asyncio.ensure_future(worker.call(self._wait))

    def _wait(self) -> None:
        self._inside.set()
        self._release.wait(60)

    async def __aenter__(self) -> "Held":
        await asyncio.to_thread(self._inside.wait, 60)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._release.set()
        await self.call


async def nothing_left(worker: EngineWorker) -> bool:
    """Whether the engine has no request, once it has heard all that was said to it."""
    return not await worker.call(worker.engine.has_work) and not worker._boxes


def test_many_requests_at_once(worker: EngineWorker) -> None:
    async def main() -> list[str]:
        prompts = [PROMPT[:length] for length in range(1, 15)]
        parts = (text(worker, str(len(prompt)), prompt) for prompt in prompts)
        return await asyncio.gather(*parts)

    assert run(main()) == [bytes(PROMPT[:length]).decode() for length in range(1, 15)]


def test_closing_the_iterator_cancels(worker: EngineWorker, engine: Troubled) -> None:
    engine.pause = 0.01  # else all of it may be said before it is cancelled

    async def main() -> None:
        async with aclosing(worker.stream(Request("a", PROMPT * 50, PARAMS))) as updates:
            await anext(updates)
            assert worker.engine.has_work()
        assert await nothing_left(worker)
        engine.pause = 0.0
        assert await text(worker, "a"), "the id is free again"

    run(main())


def test_who_goes_before_its_turn_is_not_begun(worker: EngineWorker) -> None:
    async def main() -> None:
        async with Held(worker):
            task = asyncio.create_task(text(worker, "a"))
            await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert await nothing_left(worker)
        assert worker.healthy() and await text(worker, "b") == bytes(PROMPT).decode()

    run(main())


def test_who_goes_while_it_is_begun_is_cancelled(
    worker: EngineWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, add = threading.Event(), threading.Event(), worker.engine.add

    def slow(request: Request) -> None:
        begun.set()
        go_on.wait(60)
        add(request)

    monkeypatch.setattr(worker.engine, "add", slow)

    async def main() -> None:
        task = asyncio.create_task(text(worker, "a", PROMPT * 100))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        go_on.set()
        assert await nothing_left(worker) and worker.healthy()

    run(main())


def test_a_refusal_reaches_who_asked_and_nobody_else(worker: EngineWorker) -> None:
    async def main() -> None:
        async with Held(worker):
            good = asyncio.create_task(text(worker, "good"))
            bad = asyncio.create_task(text(worker, "bad", ()))
            await asyncio.sleep(0)
        with pytest.raises(ConfigError, match="the prompt has 0 tokens"):
            await bad
        assert await good == bytes(PROMPT).decode()

    run(main())


def test_a_refused_id_does_not_cancel_its_owner(tokenizer_folder: Path) -> None:
    backend = make_llm(load_tokenizer(tokenizer_folder), "torch").backend()
    params = SamplingParams(max_new_tokens=30, ignore_eos=True)

    async def main() -> None:
        try:
            async with aclosing(backend.run(Request("a", (5, 6), params))) as updates:
                first = await anext(updates)
                with pytest.raises(ConfigError, match="'a' is running already"):
                    await anext(backend.run(Request("a", (5, 6), params)))
                rest = [update async for update in updates]
            assert sum(len(update.token_ids) for update in (first, *rest)) == 30
        finally:
            await backend.close()

    run(main())


def test_cancelled_requests_give_their_blocks_back(tokenizer_folder: Path) -> None:
    backend = make_llm(load_tokenizer(tokenizer_folder), "torch", cache_tokens=256).backend()
    params = SamplingParams(max_new_tokens=100, ignore_eos=True, n=3)

    async def main() -> None:
        try:
            for _ in range(3):
                streams = [backend.generate("Anna", params) for _ in range(4)]
                for updates in streams:
                    await anext(updates)
                for updates in streams:
                    await updates.aclose()
                stats = await backend.call(backend.stats)
                assert stats.free_blocks == stats.blocks and not stats.running + stats.waiting
        finally:
            await backend.close()

    run(main())


def test_a_failed_step_ends_what_was_running_and_nothing_more(
    worker: EngineWorker, engine: Troubled
) -> None:
    async def main() -> None:
        async with Held(worker):
            tasks = [asyncio.create_task(text(worker, name)) for name in "ab"]
            await asyncio.sleep(0)
            engine.failures = 1
        for task in tasks:
            with pytest.raises(EngineError, match="failed while it computed this; try again"):
                await task
        assert worker.healthy() and await text(worker, "a") == bytes(PROMPT).decode()

    run(main())


def test_an_engine_that_fails_each_time_is_given_up(worker: EngineWorker, engine: Troubled) -> None:
    async def main() -> None:
        engine.failures = MAX_FAILURES
        for number in range(MAX_FAILURES):
            assert worker.healthy()
            with pytest.raises(EngineError, match="try again"):
                await text(worker, str(number))
        await asyncio.to_thread(worker._thread.join, 60)
        assert not worker.healthy()
        with pytest.raises(EngineError, match="the engine has stopped; start the server again"):
            await text(worker, "late")

    run(main())


def test_an_engine_that_cannot_be_cleared_is_given_up_at_once(
    worker: EngineWorker, engine: Troubled
) -> None:
    async def main() -> None:
        engine.failures, engine.clears = 1, False
        with pytest.raises(EngineError):
            await text(worker, "a")
        await asyncio.to_thread(worker._thread.join, 60)
        assert not worker.healthy()

    run(main())


def test_an_engine_that_is_stuck_in_a_step_is_given_up(
    worker: EngineWorker, engine: Troubled, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        engine.goes_on.clear()
        task = asyncio.create_task(text(worker, "a"))
        while worker._step_began is None:
            await asyncio.sleep(0)
        assert worker.healthy(), "it may only be slow"
        monkeypatch.setattr("openllm.engine.backends.worker.STUCK_S", 0.0)
        try:
            assert not worker.healthy()
            with pytest.raises(EngineError, match="the engine has stopped; start the server again"):
                await text(worker, "late")
            worker.close()  # does not wait for it
            assert worker._thread.is_alive()
        finally:
            engine.goes_on.set()
        with pytest.raises(EngineError, match="the engine was stopped"):
            await task

    run(main())


def test_closing_ends_what_runs_and_refuses_what_waits(worker: EngineWorker) -> None:
    async def main() -> None:
        updates = worker.stream(Request("a", PROMPT * 100, PARAMS))
        await anext(updates)
        async with Held(worker):
            waiting = asyncio.create_task(text(worker, "b"))
            await asyncio.sleep(0)
            closing = asyncio.create_task(asyncio.to_thread(worker.close))
            while worker.healthy():
                await asyncio.sleep(0)
            with pytest.raises(EngineError, match="the engine has stopped"):
                await text(worker, "late")
        with pytest.raises(EngineError, match="the engine was stopped"):
            async for _ in updates:
                pass
        with pytest.raises(EngineError, match="stopped"):
            await waiting
        await closing
        worker.close()  # once more does no harm

    run(main())


def test_two_event_loops(worker: EngineWorker) -> None:
    found: dict[str, list[str]] = {}

    def serve(name: str) -> None:
        async def main() -> list[str]:
            return await asyncio.gather(*(text(worker, f"{name}{i}") for i in range(5)))

        found[name] = run(main())

    threads = [threading.Thread(target=serve, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys("ab", [bytes(PROMPT).decode()] * 5)


def test_a_closed_event_loop_disturbs_nobody(worker: EngineWorker) -> None:
    """As when a program ends its loop without ending its tasks."""
    loop = asyncio.new_event_loop()
    updates = worker.stream(Request("lost", PROMPT * 100, PARAMS))
    loop.run_until_complete(anext(updates))
    loop.close()

    async def main() -> None:
        assert await text(worker, "a") == bytes(PROMPT).decode()
        assert await nothing_left(worker), "nobody can read it any more"

    run(main())
    with pytest.raises(StopIteration):  # it can be closed without its loop
        updates.aclose().send(None)


def test_an_error_in_a_call_reaches_who_called(worker: EngineWorker) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await worker.call(lambda: 1 // 0)
        assert await worker.call(lambda: 5) == 5

    run(main())


def test_echo_keeps_nothing_of_what_has_ended(worker: EngineWorker, engine: Troubled) -> None:
    kinds: list[Any] = ["generate", "score", "embed"]

    async def main() -> None:
        for number, kind in enumerate(kinds * 2):
            request = Request(str(number), PROMPT, PARAMS, kind=kind)
            assert [update async for update in worker.stream(request)]

    run(main())
    assert not engine._echoes
