# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Connections: limits of number and time that only the transport can keep."""

import asyncio
import json
from typing import Any

from openllm.serve.operations.config import LimitSettings

CROWD = 256
"""Connections beyond the limit that are still told so; what is beyond those is closed unread."""

GRACE_S = 0.5
"""Time that an idle connection stays open after the drain began: a request may be on its way."""


def connection_class(base: type[Any], limits: LimitSettings) -> type[Any]:
    """uvicorn's connection, with timeouts for slow clients and a limit of their number."""

    class Connection(base):
        """Between two requests a client has `keep_alive_s`, for the headers `header_timeout_s`."""

        _draining = False
        _slow_reader: asyncio.TimerHandle | None = None
        _slow_headers: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            crowd = len(self.connections) - limits.max_connections
            if crowd > CROWD:
                transport.abort()
                return
            if crowd > 0:
                self.app = _crowded
            self._await_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            for timer in (self._slow_reader, self._slow_headers):
                if timer is not None:
                    timer.cancel()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._between_requests():
                self._await_headers()
            elif self._slow_headers is not None:
                self._slow_headers.cancel()
                self._slow_headers = None

        def shutdown(self) -> None:
            """The drain has begun: the next answer says that it is the last, then this closes.

            An answer that has begun did not say so: its client may already be sending again.
            """
            self._draining = True
            self.timeout_keep_alive = GRACE_S
            if self._between_requests():
                self.loop.call_later(GRACE_S, self._close_if_idle)

        def handle_events(self) -> None:
            super().handle_events()
            if self._draining and self.cycle is not None and not self.cycle.response_started:
                self.cycle.keep_alive = False

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._slow_reader is None:
                self._slow_reader = self.loop.call_later(
                    limits.write_timeout_s, self.transport.abort
                )

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._slow_reader is not None:
                self._slow_reader.cancel()
                self._slow_reader = None

        def send_400_response(self, msg: str) -> None:
            """Answer what is not HTTP, and close."""
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_plain(400, "Bad Request", "this is not valid HTTP"))
            self.transport.close()

        def _between_requests(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _await_headers(self) -> None:
            """Begin to wait for a request, once; more bytes of it do not give it more time."""
            if self._slow_headers is None:
                self._slow_headers = self.loop.call_later(
                    limits.header_timeout_s, self._close_if_idle
                )

        def _close_if_idle(self) -> None:
            if self._between_requests() and not self.transport.is_closing():
                self.transport.close()

    return Connection


async def _crowded(scope: Any, receive: Any, send: Any) -> None:
    """The application of connections that are too many."""
    body = _error("there are too many connections; try again later", "too_many_connections")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"1"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _plain(status: int, phrase: str, message: str) -> bytes:
    """A whole response, for what does not reach the application."""
    body = _error(message, "invalid_http")
    head = (
        f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def _error(message: str, code: str) -> bytes:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return json.dumps({"error": error}).encode()
