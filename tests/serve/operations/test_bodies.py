# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Bodies within limits of size and time, however they are sent."""

import asyncio
import platform
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock

import pytest
from tests.serve.asgi import Reply, ask

from openllm.serve.operations.bodies import Bodies
from openllm.serve.operations.config import LimitSettings
from openllm.serve.operations.exchange import Exchange, answering
from openllm.serve.operations.memory import LARGE_BYTES, Memory, trimmer

LIMIT = 2048


async def echo(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    assert message["more_body"] is False
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


def call(body: Any, *headers: tuple[bytes, bytes], timeout: float = 30, **how: Any) -> Reply:
    settings = LimitSettings(max_body_bytes=LIMIT, body_timeout_s=timeout)
    return asyncio.run(ask(Bodies(echo, settings), "POST", "/x", body=body, headers=headers))


async def pieces(size: int, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * size


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 1), (1, LIMIT), (LIMIT, 1), (512, 4)])
def test_what_fits_arrives_in_one_piece(size: int, count: int) -> None:
    reply = call(pieces(size, count))
    assert (reply.status, reply.body) == (200, b"x" * size * count)


@pytest.mark.parametrize("stated", [True, False])
def test_what_does_not_fit_is_refused(stated: bool) -> None:
    size = LIMIT + 1
    headers = [(b"content-length", str(size).encode())] if stated else []
    reply = call(pieces(1, size), *headers)
    assert (reply.status, reply.code) == (413, "body_too_large")
    assert reply.header("connection") == "close" and "2,048" in reply.json()["error"]["message"]


def test_a_stated_size_is_refused_before_it_is_sent() -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    headers = [(b"content-length", b"999999999"), (b"expect", b"100-continue")]
    assert call(never(), *headers).status == 413


@pytest.mark.parametrize("length", [b"-1", b"+1", b"1_0", b"0x10", b"1 ", b"", b"9" * 40])
def test_strange_lengths_are_refused(length: bytes) -> None:
    assert call(b"x", (b"content-length", length)).status == 400


def test_two_ends_of_a_body_are_refused() -> None:
    headers = [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")]
    reply = call(b"x", *headers)
    assert (reply.status, reply.code) == (400, "ambiguous_length")
    assert reply.header("connection") == "close"


def test_a_slow_body_is_refused() -> None:
    async def slow() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    reply = call(slow(), timeout=0.05)
    assert (reply.status, reply.code) == (408, "body_timeout")


def test_a_client_that_leaves_is_not_answered() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError("nobody is there")

    exchange = Exchange("id")

    async def run() -> None:
        with answering(exchange):
            app = Bodies(echo, LimitSettings())
            await app({"type": "http", "headers": []}, receive, send)

    asyncio.run(run())
    assert exchange.outcome == "disconnected"


def test_prompts_are_kept_only_on_request() -> None:
    for keep in (False, True):
        exchange = Exchange("id")

        async def run(keep: bool = keep, exchange: Exchange = exchange) -> None:
            with answering(exchange):
                await ask(Bodies(echo, LimitSettings(), keep=keep), "POST", "/x", body=b"prompt")

        asyncio.run(run())
        assert exchange.body == (b"prompt" if keep else None)


def test_memory_is_trimmed_once_after_large_requests() -> None:
    trims: list[int] = []

    async def run() -> None:
        memory = Memory(lambda: trims.append(1))
        memory.request_ended(100)
        await asyncio.sleep(0.03)
        assert not trims
        for _ in range(5):
            memory.request_ended(LARGE_BYTES)
        await asyncio.sleep(0.1)
        assert trims == [1]
        memory.request_ended(LARGE_BYTES)
        await asyncio.sleep(0.1)
        assert trims == [1, 1]
        Memory(None).request_ended(LARGE_BYTES)

    with mock.patch("openllm.serve.operations.memory.DELAY_S", 0.01):
        asyncio.run(run())


def test_trimming_is_possible_here() -> None:
    trim = trimmer()
    if platform.libc_ver()[0] == "glibc":
        assert trim is not None
    if trim is not None:
        trim()
