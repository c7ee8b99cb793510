# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Server-sent events, and what happens when a client leaves."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openllm.serve.errors import ApiError, error_event

Result = TypeVar("Result")

DONE = b"data: [DONE]\n\n"

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


class ClientGone(ApiError):
    """The client left; nobody reads the answer."""

    def __init__(self) -> None:
        super().__init__("the client left before the answer", status=499, code="client_gone")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first_of(work: Awaitable[Result], receive: Receive) -> Result:
    """The result of some work, unless the client leaves first; then the work is cancelled."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """The result of some work, which is cancelled if the client leaves. The body must be read.

    Raises:
        ClientGone: it left.
    """
    return await _first_of(work, request.receive)


async def event_stream(request: Request, events: AsyncGenerator[bytes, None]) -> Response:
    """A response that sends events; what fails before the first is raised as for any request."""
    try:
        first = await unless_gone(request, anext(events))
    except BaseException:
        await events.aclose()
        raise
    return _EventStream(first, events)


class _EventStream(Response):
    """Sends events until they end or the client leaves, and closes their source in any case."""

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None]) -> None:
        self.status_code, self.background = 200, None
        self.raw_headers = list(HEADERS)
        self._first, self._events = first, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all."""
        start: dict[str, Any] = {"type": "http.response.start", "status": self.status_code}
        try:
            await send({**start, "headers": self.raw_headers})
            await _first_of(self._send_all(send), receive)
        except (ClientGone, OSError):  # a server may also say by an OSError that it left
            pass
        finally:
            await self._events.aclose()

    async def _send_all(self, send: Send) -> None:
        body: dict[str, Any] = {"type": "http.response.body", "more_body": True}
        await send({**body, "body": self._first})
        try:
            async for event in self._events:
                await send({**body, "body": event})
        except OSError:
            raise
        except Exception as error:
            await send({**body, "body": error_event(error) + DONE})
        await send({"type": "http.response.body", "body": b""})
