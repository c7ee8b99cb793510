# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Calls ASGI applications as no well-behaved client would."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openllm.engine.backend import BackendInfo
from openllm.engine.backends.echo import TEMPLATE, EchoEngine, echo_backend
from openllm.engine.backends.local import LocalBackend
from openllm.serve.operations.keys import KeyFile
from openllm.text.byte_tokenizer import ByteTokenizer
from openllm.text.chat import ChatTemplate

Pairs = Sequence[tuple[bytes, bytes]]


@dataclass
class Reply:
    """What an application answered; `complete` if it also said so."""

    status: int | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.encode()]
        return found[0].decode("latin-1") if found else None

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json()["error"]["code"]


async def ask(
    app: Any,
    method: str,
    path: str,
    *,
    headers: Pairs = (),
    body: bytes | AsyncIterator[bytes] = b"",
    query: bytes = b"",
    leave: asyncio.Event | None = None,
    client: str = "127.0.0.1",
    kind: str = "http",
) -> Reply:
    """One request. The client leaves when `leave` is set, else it waits for the end."""
    reply, ended = Reply(), asyncio.Event()
    parts = _one(body) if isinstance(body, bytes) else body

    async def receive() -> dict[str, Any]:
        try:
            return {"type": "http.request", "body": await anext(parts), "more_body": True}
        except StopAsyncIteration:
            pass
        if not receive_done:
            receive_done.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}
        await (leave or ended).wait()
        return {"type": "http.disconnect"}

    receive_done: list[bool] = []

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            reply.status, reply.headers = message["status"], list(message["headers"])
        elif message["type"] == "http.response.body":
            reply.body += message.get("body", b"")
            reply.complete = not message.get("more_body", False)
        else:
            reply.status = 403  # what a server makes of a closed websocket
        if reply.complete:
            ended.set()

    scope = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": [(b"host", b"localhost"), *headers],
        "client": (client, 5000),
        "server": ("localhost", 8000),
        "state": {},
    }
    await app(scope, receive, send)
    return reply


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


def bearer(secret: str) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + secret.encode()


JSON = (b"content-type", b"application/json")


def chat_body(text: str = "hello", **more: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": text}], **more}).encode()


def add_key(path: Path, name: str, **settings: Any) -> str:
    """Make a key; returns its secret."""
    return KeyFile(path).add(name, **settings)[1]


class SlowEngine(EchoEngine):
    """Echo at a chosen speed."""

    def __init__(self, step_s: float) -> None:
        super().__init__(ByteTokenizer())
        self.step_s = step_s
        self.aborted: list[str] = []

    def step(self) -> list[Any]:
        import time

        time.sleep(self.step_s)
        return super().step()

    def abort(self, request_id: str) -> None:
        if request_id in self._echoes:
            self.aborted.append(request_id)
        super().abort(request_id)


def slow_backend(step_s: float, name: str = "slow") -> tuple[LocalBackend, SlowEngine]:
    engine = SlowEngine(step_s)
    info = BackendInfo(name, "echo", engine.max_positions)
    return LocalBackend(engine, ByteTokenizer(), ChatTemplate(TEMPLATE), info), engine


__all__ = ["JSON", "Reply", "add_key", "ask", "bearer", "chat_body", "echo_backend", "slow_backend"]
