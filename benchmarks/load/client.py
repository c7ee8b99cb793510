# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A client of HTTP/1.1 that is cheap enough to load a server on the same machine."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any


class Broken(Exception):
    """The connection ended before the answer did; `begun` if a part of it had come."""

    def __init__(self, begun: bool) -> None:
        super().__init__("the connection ended")
        self.begun = begun


@dataclass
class Answer:
    """One answer.

    Attributes:
        first_s, seconds: from the request to the first part of the body, and to its end.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    first_s: float = 0.0
    seconds: float = 0.0

    def json(self) -> Any:
        """The body as plain values."""
        return json.loads(self.body)


class Client:
    """One connection that is kept open; one request at a time."""

    def __init__(self, port: int, secret: str, *, timeout_s: float = 120) -> None:
        self.port, self.secret, self.timeout_s = port, secret, timeout_s
        self.reused = False
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: bytes = b"", *headers: str) -> Answer:
        """One request and its answer.

        Raises:
            Broken, OSError, TimeoutError: there was no whole answer.
        """
        async with asyncio.timeout(self.timeout_s):
            await self.send(method, path, body, *headers)
            return await self.receive(time.perf_counter())

    async def send(
        self, method: str, path: str, body: bytes, *headers: str, cut: int | None = None
    ) -> None:
        """Send a request, or only its first bytes."""
        self.reused = self._writer is not None
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        own = [] if any("uthorization" in line for line in headers) else [self.authorization]
        kind = [] if any("ontent-" in line for line in headers) else [JSON]
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *own, *kind, *headers]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n"
        self._writer.write((head.encode() + body)[:cut])
        try:
            await self._writer.drain()
        except ConnectionError:
            await self.close()
            raise Broken(False) from None

    @property
    def authorization(self) -> str:
        """The header with the key."""
        return f"Authorization: Bearer {self.secret}"

    async def receive(self, began: float) -> Answer:
        """The answer to the request that was sent."""
        reader, answer = self._reader, Answer()
        assert reader is not None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            answer.status = int(lines[0].split()[1])
            pairs = (line.partition(": ") for line in lines[1:] if line)
            answer.headers = {name.lower(): value for name, _, value in pairs}
            await self._read_body(reader, answer, began)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            await self.close()
            begun = bool(answer.status) or bool(getattr(error, "partial", b""))
            raise Broken(begun) from None
        except asyncio.CancelledError:
            await self.close()
            raise
        answer.seconds = time.perf_counter() - began
        if answer.headers.get("connection") == "close":
            await self.close()
        return answer

    async def _read_body(self, reader: asyncio.StreamReader, answer: Answer, began: float) -> None:
        if answer.headers.get("transfer-encoding") != "chunked":
            answer.body = await reader.readexactly(int(answer.headers.get("content-length", "0")))
            answer.first_s = time.perf_counter() - began
            return
        parts = []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            parts.append((await reader.readexactly(size + 2))[:-2])
            answer.first_s = answer.first_s or time.perf_counter() - began
        await reader.readexactly(2)
        answer.body = b"".join(parts)

    async def close(self) -> None:
        """Close the connection at once."""
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = self._reader = None


JSON = "Content-Type: application/json"
