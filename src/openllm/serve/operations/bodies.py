# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Bodies of requests: read whole before anything else is done, within limits of size and time."""

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openllm.serve.operations.config import LimitSettings
from openllm.serve.operations.exchange import current
from openllm.serve.operations.memory import Memory, trimmer
from openllm.serve.operations.refusal import Refusal

LINGER_S = 2.0
LINGER_BYTES = 64 << 20
"""How much of a too large body is read and dropped: a client that is still sending would not see
an answer after which the connection is closed."""


class _Gone(Exception):
    """The client has left before its body was complete."""


class Bodies:
    """Refuses bodies that are too large (413) or arrive too slowly (408)."""

    def __init__(self, app: ASGIApp, settings: LimitSettings, *, keep: bool = False) -> None:
        self.app, self.settings, self.keep = app, settings, keep
        self._memory = Memory(trimmer())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its whole body, or answer why not."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.settings.body_timeout_s):
                body = await self._read(scope, receive)
        except TimeoutError:
            late = Refusal(408, "body_timeout", "the body did not arrive in time", close=True)
            await late.send(send)
            return
        except Refusal as refusal:
            await refusal.send(send)
            return
        except _Gone:
            if exchange := current():
                exchange.outcome, exchange.reason = "disconnected", "incomplete_body"
            return
        if self.keep and (exchange := current()):
            exchange.body = body
        size = len(body)
        replay = _replay(body, receive)
        del body  # only the endpoint holds it, no longer than it needs it
        try:
            await self.app(scope, replay, send)
        finally:
            self._memory.request_ended(size)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        limit = self.settings.max_body_bytes
        headers = dict(scope["headers"])
        stated = headers.get(b"content-length", b"0")
        if not stated.isdigit() or len(stated) > 18:
            raise Refusal(400, "invalid_content_length", "Content-Length is no size", close=True)
        if b"content-length" in headers and b"transfer-encoding" in headers:
            # A proxy before us may have read another end of this request.
            message = "send Content-Length or Transfer-Encoding, not both"
            raise Refusal(400, "ambiguous_length", message, close=True)
        if int(stated) > limit:
            self._memory.request_ended(int(stated))
            if b"expect" not in headers:
                await _drop(receive)
            raise self._too_large()
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                parts.clear()
                await _drop(receive)
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_large(self) -> Refusal:
        limit = self.settings.max_body_bytes
        message = f"the body is too large; at most {limit:,} bytes are accepted here"
        return Refusal(413, "body_too_large", message, close=True)


async def _drop(receive: Receive) -> None:
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while size < LINGER_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body in one piece, then what `receive` gives."""
    held = [body]

    async def replaying() -> Message:
        if not held:
            return await receive()
        return {"type": "http.request", "body": held.pop(), "more_body": False}

    return replaying
