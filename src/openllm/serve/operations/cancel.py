# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Ends the work for a request whose client has left, or whose time is over.

It stands inside of `Bodies`, so that the first message is the whole body, and whatever comes after
it means that the client has gone.
"""

import asyncio
from typing import Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openllm.serve.operations.exchange import current
from openllm.serve.operations.refusal import Refusal, too_busy

UNWIND_S = 10.0
"""Time that cancelled work has to clean up."""

End = Literal["done", "gone", "late", "stopped"]


class Answer:
    """What has been sent so far of one answer."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = self.complete = self.events = False

    async def send(self, message: Message) -> None:
        """Send a message, and remember how far the answer is."""
        if message["type"] == "http.response.start":
            self.started = True
            kinds = [value for name, value in message["headers"] if name.lower() == b"content-type"]
            self.events = any(kind.startswith(b"text/event-stream") for kind in kinds)
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        await self._send(message)

    async def end(self, refusal: Refusal) -> None:
        """Say why there is no more: as an answer, or as the last event of a stream.

        Anything else that has begun stays incomplete, which the connection's end tells the client.
        """
        if not self.started:
            await refusal.send(self._send)
        elif self.events and not self.complete:
            event = b"data: " + refusal.body() + b"\n\n"
            await self._send({"type": "http.response.body", "body": event})


class Cancellation:
    """Cancels the work when the client leaves, after `timeout_s`, or when the server stops."""

    def __init__(self, app: ASGIApp, timeout_s: float) -> None:
        self.app, self.timeout_s = app, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, as far as someone waits for it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = Answer(send)
        end = await self._run(scope, receive, answer)
        if end == "gone":
            if exchange := current():
                exchange.outcome, exchange.reason = "disconnected", "client_left"
        elif end == "late":
            # Clients of OpenAI's API repeat a request after 408, unless they are told not to.
            headers = {"x-should-retry": "false"}
            message = f"the answer took longer than {self.timeout_s:g} s; ask for less"
            await answer.end(Refusal(408, "request_timeout", message, headers, close=True))
            if exchange := current():
                exchange.outcome, exchange.reason = "timeout", "request_timeout"
        elif end == "stopped":
            await answer.end(too_busy("the server stops; ask again soon", "stopping", 1))
            if exchange := current():
                exchange.refused("stopping")

    async def _run(self, scope: Scope, receive: Receive, answer: Answer) -> End:
        first = [await receive()]
        left = asyncio.Event()

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            left.set()

        async def give() -> Message:
            if first:
                return first.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        work = asyncio.ensure_future(self.app(scope, give, answer.send))
        watcher = asyncio.create_task(watch())
        try:
            return await self._wait(work, watcher, answer)
        except asyncio.CancelledError:
            if work.done() and not work.cancelled() and work.exception() is not None:
                raise
            return "done" if answer.complete else "stopped"
        finally:
            watcher.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait({work}, timeout=UNWIND_S)

    async def _wait(
        self, work: asyncio.Future[None], watcher: asyncio.Task[None], answer: Answer
    ) -> End:
        tasks: set[asyncio.Future[None]] = {work, watcher}
        done, _ = await asyncio.wait(
            tasks, timeout=self.timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if work not in done and answer.complete:  # what is left is not for the client
            await asyncio.wait({work}, timeout=self.timeout_s)
        if work.done():
            work.result()
            return "done"
        return "gone" if watcher in done else "late"
