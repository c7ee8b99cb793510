# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Back-pressure: so many requests are answered at once, so many may wait, others come back later.

The engine batches what runs and has a queue of its own; this one is before it, bounds the memory
that waiting requests take, and tells clients early that they will have to wait.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from openllm.serve.operations.config import LimitSettings
from openllm.serve.operations.exchange import current
from openllm.serve.operations.refusal import Refusal, too_busy
from openllm.serve.operations.rules import RULES, Rule, rule_of

LONGEST_RETRY_S = 60.0
MEMORY = 0.05
"""Weight of the latest request in the mean time that requests take."""


class Turns:
    """Gives turns in the order of arrival.

    Attributes:
        running: requests that have their turn.
        open: whether new requests are taken; while it is false, they are refused with 503.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self.settings = settings
        self.running = 0
        self.open = True
        self._queue: deque[asyncio.Future[None]] = deque()
        self._mean_s = 1.0

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._queue)

    def retry_s(self) -> float:
        """Seconds after which there may be room in the queue."""
        rounds = (self.waiting + 1) / self.settings.max_running
        return min(LONGEST_RETRY_S, max(1.0, rounds * self._mean_s))

    async def take(self) -> None:
        """Wait for a turn; `give_back` must follow.

        Raises:
            Refusal: the queue is full, or the wait is too long.
        """
        if not self.open:
            raise too_busy("no new requests are taken now; try again later", "draining", 5)
        if self.running < self.settings.max_running:
            self.running += 1
            return
        if self.waiting >= self.settings.max_queue:
            raise self._busy("the server is busy and its queue is full")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(self.settings.queue_timeout_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # it came in the same moment
            elif turn in self._queue:
                self._queue.remove(turn)
            if isinstance(error, TimeoutError):
                raise self._busy("the server is too busy to begin with this in time") from None
            raise

    def give_back(self, took_s: float) -> None:
        """The turn is over."""
        self._mean_s += MEMORY * (took_s - self._mean_s)
        self._pass_on()

    def _pass_on(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1

    def _busy(self, message: str) -> Refusal:
        return too_busy(f"{message}; try again later", "overloaded", self.retry_s())


class BackPressure:
    """Lets a request for a model's work in when it is its turn, or answers 503."""

    def __init__(
        self,
        app: ASGIApp,
        turns: Turns,
        *,
        rules: tuple[Rule, ...] = RULES,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.app, self.turns, self.rules, self._clock = app, turns, rules, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer why not."""
        rule = rule_of(scope["path"], self.rules) if scope["type"] == "http" else None
        if rule is None or rule.work is None:
            await self.app(scope, receive, send)
            return
        came = self._clock()
        try:
            await self.turns.take()
        except Refusal as refusal:
            await refusal.send(send)
            return
        began = self._clock()
        if exchange := current():
            exchange.queued_s = began - came
        try:
            await self.app(scope, receive, send)
        finally:
            self.turns.give_back(self._clock() - began)
