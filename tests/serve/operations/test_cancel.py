# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Work ends when nobody waits for it any more."""

import asyncio
from typing import Any

from tests.serve.asgi import Reply, ask, chat_body, slow_backend

from openllm.engine.request import SamplingParams
from openllm.serve.operations.bodies import Bodies
from openllm.serve.operations.cancel import Cancellation
from openllm.serve.operations.config import LimitSettings
from openllm.serve.operations.exchange import Exchange, answering

EVENTS = [(b"content-type", b"text/event-stream")]
PLAIN = [(b"content-type", b"application/json")]


class Endpoint:
    """Answers as it is told, and remembers how it ended."""

    def __init__(self, *, headers: Any = (), parts: int = 0, forever: bool = False) -> None:
        self.headers, self.parts, self.forever = headers, parts, forever
        self.begun, self.end = asyncio.Event(), "running"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        try:
            self.begun.set()
            if self.headers:
                await send({"type": "http.response.start", "status": 200, "headers": self.headers})
            for _ in range(self.parts):
                await send({"type": "http.response.body", "body": b"part,", "more_body": True})
            if self.forever:
                await asyncio.Event().wait()
            await send({"type": "http.response.body", "body": b"end"})
            self.end = "complete"
        except asyncio.CancelledError:
            self.end = "cancelled"
            raise


def run(endpoint: Endpoint, *, timeout: float = 30, leave: bool = False) -> tuple[Reply, Exchange]:
    exchange = Exchange("id")

    async def main() -> Reply:
        app = Bodies(Cancellation(endpoint, timeout), LimitSettings())
        left = asyncio.Event()
        with answering(exchange):
            task = asyncio.create_task(ask(app, "POST", "/x", leave=left if leave else None))
            if leave:
                await endpoint.begun.wait()
                left.set()
            return await asyncio.wait_for(task, 5)

    return asyncio.run(main()), exchange


def test_a_whole_answer_passes() -> None:
    endpoint = Endpoint(headers=PLAIN, parts=2)
    reply, exchange = run(endpoint)
    assert (reply.body, reply.complete, endpoint.end) == (b"part,part,end", True, "complete")
    assert exchange.outcome == "answered"


def test_a_client_that_leaves_cancels_before_and_within_the_answer() -> None:
    for headers in ((), PLAIN, EVENTS):
        endpoint = Endpoint(headers=headers, parts=1 if headers else 0, forever=True)
        reply, exchange = run(endpoint, leave=True)
        assert endpoint.end == "cancelled" and not reply.complete
        assert exchange.outcome == "disconnected"


def test_time_is_limited() -> None:
    endpoint = Endpoint(forever=True)
    reply, exchange = run(endpoint, timeout=0.02)
    assert (reply.status, reply.code, endpoint.end) == (408, "request_timeout", "cancelled")
    assert reply.header("x-should-retry") == "false" and exchange.outcome == "timeout"


def test_a_late_stream_ends_with_an_error_event() -> None:
    endpoint = Endpoint(headers=EVENTS, parts=1, forever=True)
    reply, _ = run(endpoint, timeout=0.02)
    assert reply.body.startswith(b"part,data: {") and reply.body.endswith(b"}\n\n")
    assert b"request_timeout" in reply.body and endpoint.end == "cancelled"


def test_a_late_body_stays_incomplete() -> None:
    reply, _ = run(Endpoint(headers=PLAIN, parts=1, forever=True), timeout=0.02)
    assert reply.body == b"part," and not reply.complete


def test_a_server_that_stops_says_so() -> None:
    for headers in ((), EVENTS):
        endpoint = Endpoint(headers=headers, parts=0, forever=True)

        async def main(endpoint: Endpoint = endpoint) -> Reply:
            app = Bodies(Cancellation(endpoint, 30), LimitSettings())
            task = asyncio.create_task(ask(app, "POST", "/x"))
            await endpoint.begun.wait()
            task.cancel()
            return await task

        reply = asyncio.run(main())
        assert endpoint.end == "cancelled" and b'"code":"stopping"' in reply.body
        assert reply.status == (200 if headers else 503)


def test_errors_pass() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("prompt")

    async def main() -> None:
        await ask(Cancellation(broken, 30), "GET", "/x")

    try:
        asyncio.run(main())
    except KeyError:
        return
    raise AssertionError("the error was swallowed")


def test_the_engine_stops_computing_for_who_has_left() -> None:
    backend, engine = slow_backend(0.005)

    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        stream = backend.generate("x" * 2000, SamplingParams(max_new_tokens=2000))
        async for update in stream:
            part = update.text.encode()
            await send({"type": "http.response.body", "body": part, "more_body": True})

    async def main() -> int:
        left = asyncio.Event()
        app = Bodies(Cancellation(endpoint, 30), LimitSettings())
        task = asyncio.create_task(ask(app, "POST", "/x", body=chat_body(), leave=left))
        while backend.stats().new_tokens < 3:
            await asyncio.sleep(0.005)
        left.set()
        await asyncio.wait_for(task, 5)
        while backend.stats().running:
            await asyncio.sleep(0.005)
        await backend.close()
        return backend.stats().new_tokens

    assert asyncio.run(main()) < 1000
    assert len(engine.aborted) == 1
