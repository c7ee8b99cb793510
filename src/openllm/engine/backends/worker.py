# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The thread that runs an engine, so that an event loop never does."""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from openllm.core.errors import EngineError
from openllm.core.log import warn
from openllm.engine.backend import Engine, EngineStats
from openllm.engine.request import Request, Update

Result = TypeVar("Result")

MAX_FAILURES = 3
"""Steps in a row that may fail before the worker gives up."""

STUCK_S = 600.0
"""Seconds in one step after which the engine counts as stuck: far more than slow machines need."""

STOPPED = "the engine has stopped; start the server again"


def continuations(request: Request) -> int:
    """Number of final updates that a request brings."""
    return request.params.n if request.kind == "generate" else 1


class _Mailbox:
    """Updates of one request, on their way from the engine's thread to an event loop."""

    def __init__(self, request: Request) -> None:
        self.loop = asyncio.get_running_loop()
        self.updates: asyncio.Queue[Update] = asyncio.Queue()
        # continuations that have not ended, as either side knows
        self.unsent = self.unread = continuations(request)


class EngineWorker:
    """Runs an engine in a thread of its own and hands its updates to event loops."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._lock = threading.Lock()  # nothing is queued once nobody is there to run it
        self._boxes: dict[str, _Mailbox] = {}
        self._failures = 0
        self._closed = False
        self._step_began: float | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def healthy(self) -> bool:
        """Whether the thread runs, its last steps did not all fail, and none is stuck."""
        return self._thread.is_alive() and not self._closed and not self._stuck()

    def stats(self) -> EngineStats:
        """Counters; read from another thread, so they may be a step old."""
        return self.engine.stats()

    async def stream(self, request: Request) -> AsyncGenerator[Update]:
        """Run a request; closing the iterator cancels it.

        Raises:
            ConfigError: the engine refuses it.
            EngineError: the engine failed.
        """
        if request.params.structure is not None:
            await asyncio.to_thread(self.engine.prepare, request.params)
        box = _Mailbox(request)
        try:
            await self.call(lambda: self._begin(request, box))
            while box.unread:
                update = await box.updates.get()
                if update.finish_reason == "error":
                    raise EngineError(update.error or "the engine failed; see its log")
                if update.finish_reason is not None:
                    box.unread -= 1
                yield update
        finally:
            if box.unread:
                with contextlib.suppress(EngineError):  # a stopped engine has nothing to cancel
                    self._post(lambda: self._forget(request.id, box))

    async def call(self, function: Callable[[], Result]) -> Result:
        """Run a function in the engine's thread, between two steps.

        Raises:
            EngineError: the engine has stopped.
        """
        return await asyncio.wrap_future(self._post(function))

    def close(self) -> None:
        """Stop after the current step, unless it is stuck; what is running ends with an error."""
        self._closed = True
        self._calls.put(None)
        if threading.current_thread() is not self._thread:
            while self._thread.is_alive() and not self._stuck():
                self._thread.join(timeout=1)

    def _stuck(self) -> bool:
        began = self._step_began
        return began is not None and time.monotonic() - began > STUCK_S

    def _post(self, function: Callable[[], Result]) -> Future[Result]:
        done: Future[Result] = Future()
        with self._lock:
            if not self.healthy():
                raise EngineError(STOPPED)
            self._calls.put((function, done))
        return done

    def _begin(self, request: Request, box: _Mailbox) -> None:
        self.engine.add(request)
        self._boxes[request.id] = box

    def _forget(self, request_id: str, box: _Mailbox) -> None:
        """Cancel a request that has neither ended nor failed."""
        if self._boxes.get(request_id) is box:
            del self._boxes[request_id]
            self.engine.abort(request_id)

    def _run(self) -> None:
        try:
            while not self._closed and self._take_calls():
                if self.engine.has_work():
                    self._deliver(self._step())
        finally:
            with self._lock:
                self._closed = True
            self._refuse_calls()
            self._deliver(self._failed("the engine was stopped"))

    def _take_calls(self) -> bool:
        """Run what others asked for, waiting for it if there is nothing else to do."""
        while True:
            try:
                call = self._calls.get(block=not self.engine.has_work())
            except queue.Empty:
                return True
            if call is None:
                return False
            function, done = call
            if not done.set_running_or_notify_cancel():
                continue  # who asked has gone
            try:
                done.set_result(function())
            except BaseException as error:  # raised again where the call came from
                done.set_exception(error)

    def _refuse_calls(self) -> None:
        while not self._calls.empty():
            call = self._calls.get()
            if call is not None and call[1].set_running_or_notify_cancel():
                call[1].set_exception(EngineError(STOPPED))

    def _step(self) -> list[Update]:
        self._step_began = time.monotonic()
        try:
            updates = self.engine.step()
        except Exception as error:  # one failed step must not end the thread of all requests
            self._failures += 1
            warn(f"an engine step failed: {type(error).__name__}: {error}")
            self._closed = self._failures >= MAX_FAILURES or not self._reset()
            return self._failed("the engine failed while it computed this; try again")
        finally:
            self._step_began = None
        self._failures = 0
        return updates

    def _reset(self) -> bool:
        """Whether the engine could be cleared after a failure."""
        try:
            self.engine.reset()
        except Exception as error:  # then the engine is given up, and all are told
            warn(f"the engine cannot be cleared: {type(error).__name__}: {error}")
            return False
        return True

    def _failed(self, reason: str) -> list[Update]:
        return [Update(name, finish_reason="error", error=reason) for name in self._boxes]

    def _deliver(self, updates: list[Update]) -> None:
        """One wake-up of each event loop per step."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Mailbox, Update]]] = {}
        for update in updates:
            box = self._boxes.get(update.id)
            if box is None:
                continue
            by_loop.setdefault(box.loop, []).append((box, update))
            if update.finish_reason is not None:
                box.unsent -= 1
                if not box.unsent or update.finish_reason == "error":
                    del self._boxes[update.id]
        for loop, pairs in by_loop.items():
            try:
                loop.call_soon_threadsafe(_put, pairs)
            except RuntimeError:  # the loop is closed, so nobody will read what is still to come
                for box, update in pairs:
                    self._forget(update.id, box)


def _put(pairs: list[tuple[_Mailbox, Update]]) -> None:
    for box, update in pairs:
        box.updates.put_nowait(update)
