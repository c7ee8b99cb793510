# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Security headers, other origins, other host names."""

import asyncio
from typing import Any

import pytest
from tests.serve.asgi import Reply, ask

from openllm.serve.operations.headers import LOCAL, SECURITY, Headers

GOOD = "https://good.example"


async def endpoint(scope: Any, receive: Any, send: Any) -> None:
    own = [(b"cache-control", b"max-age=60")] if scope["path"] == "/own" else []
    await send({"type": "http.response.start", "status": 200, "headers": own})
    await send({"type": "http.response.body", "body": b"ok"})


def call(path: str = "/", *headers: tuple[bytes, bytes], method: str = "GET", **how: Any) -> Reply:
    return asyncio.run(ask(Headers(endpoint, **how), method, path, headers=headers))


def test_every_answer_has_the_security_headers_once() -> None:
    reply = call()
    for name, value in SECURITY:
        assert [v for k, v in reply.headers if k == name] == [value]


def test_an_answer_may_say_something_else() -> None:
    assert [v for k, v in call("/own").headers if k == b"cache-control"] == [b"max-age=60"]


def test_other_origins_are_not_answered_by_default() -> None:
    reply = call("/", (b"origin", GOOD.encode()))
    assert reply.header("access-control-allow-origin") is None
    reply = call("/", (b"origin", GOOD.encode()), method="OPTIONS")
    assert reply.body == b"ok"  # it went on to where a key is asked for


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (GOOD, True),
        (GOOD.upper(), True),
        ("http://good.example", False),
        (f"{GOOD}:8443", False),
        (f"{GOOD}.evil.example", False),
        ("https://evil.example", False),
        ("null", False),
        ("*", False),
        ("", False),
    ],
)
def test_named_origins(origin: str, allowed: bool) -> None:
    reply = call("/", (b"origin", origin.encode()), origins=[GOOD])
    assert reply.header("access-control-allow-origin") == (origin if allowed else None)
    assert reply.header("access-control-allow-credentials") is None
    assert reply.header("vary") == "Origin"


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example:localhost", False),
        ("localhost@evil.example", False),
        ("evil.example#localhost", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_host_names(host: str, ours: bool) -> None:
    """Without keys, a page of another site must not reach us by a name that leads to us."""

    async def run() -> Reply:
        async def renamed(scope: Any, receive: Any, send: Any) -> None:
            scope = {**scope, "headers": [(b"host", host.encode())]}
            await Headers(endpoint, hosts=LOCAL)(scope, receive, send)

        return await ask(renamed, "GET", "/")

    reply = asyncio.run(run())
    assert reply.status == (200 if ours else 421)
    assert ours or reply.code == "unknown_host"


def test_probes_may_use_any_host_name() -> None:
    """They know addresses only, whatever names are allowed."""
    for path, status in (("/health", 200), ("/ready", 200), ("/ready/", 421), ("/v1/models", 421)):
        assert call(path, hosts=("llm.example.org",)).status == status


def test_two_host_names_are_refused() -> None:
    assert call("/", (b"host", b"localhost"), hosts=LOCAL).status == 421


def test_connections_are_closed_at_the_end() -> None:
    assert call(closing=lambda: True).header("connection") == "close"
    assert call().header("connection") is None


def test_headers_and_targets_are_bounded() -> None:
    fits = (b"a", b"x" * 900)
    assert call("/", fits, max_bytes=1000).status == 200
    for path, headers in (("/", (fits, fits)), ("/" + "y" * 1000, ())):
        reply = call(path, *headers, max_bytes=1000)
        assert (reply.status, reply.code) == (431, "headers_too_large")
        assert reply.header("connection") == "close"
