# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Security headers, cross-origin rules and the check of host names."""

from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openllm.serve.operations.refusal import Refusal

SECURITY: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
"""Sent unless the answer says something else itself, as the chat page does."""

PROBES = ("/health", "/ready")
"""Paths that may be asked for by any name: those who look after machines know their addresses only,
and what is told there is no secret."""

LOCAL = ("localhost", "127.0.0.1", "::1")

ALLOWED_METHODS = b"GET, POST, DELETE, OPTIONS"
ALLOWED_HEADERS = b"authorization, content-type, x-api-key, x-request-id, traceparent"
EXPOSED_HEADERS = b"x-request-id, retry-after"


class Headers:
    """Adds security headers; answers pages of other origins only where they are named.

    Args:
        app: the rest.
        origins: whose pages may call; none by default.
        hosts: names that requests may address; none: any. Without keys, a name that is not ours
            means that a page of another site reaches this server through its visitor's browser.
        max_bytes: most bytes of a request's target and headers.
        closing: whether clients should open a new connection for their next request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        origins: Collection[str] = (),
        hosts: Collection[str] = (),
        max_bytes: int = 32 << 10,
        closing: Callable[[], bool] = lambda: False,
    ) -> None:
        self.app, self.max_bytes, self.closing = app, max_bytes, closing
        self.origins = {origin.lower().encode() for origin in origins}
        self.hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and dress its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        found = [value for name, value in scope["headers"] if name == b"origin"]
        origin = found[0] if len(found) == 1 and found[0].lower() in self.origins else None
        last = [(b"connection", b"close")] if self.closing() else []
        dressed = _dressed(send, [*self._cross(origin), *last])
        if _size(scope) > self.max_bytes:
            message = f"the headers are too large; at most {self.max_bytes:,} bytes are read here"
            await Refusal(431, "headers_too_large", message, close=True).send(dressed)
        elif self.hosts and scope["path"] not in PROBES and not self._is_ours(scope):
            await Refusal(421, "unknown_host", "this server has another name").send(dressed)
        elif scope["method"] == "OPTIONS" and origin is not None:
            await _preflight(dressed)
        else:
            await self.app(scope, receive, dressed)

    def _cross(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        if not self.origins:
            return []
        vary = [(b"vary", b"Origin")]
        if origin is None:
            return vary
        exposed = (b"access-control-expose-headers", EXPOSED_HEADERS)
        resource = (b"cross-origin-resource-policy", b"cross-origin")
        return [*vary, (b"access-control-allow-origin", origin), exposed, resource]

    def _is_ours(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"host"]
        if len(given) != 1:
            return False
        try:
            name = urlsplit(f"//{given[0].decode('ascii')}").hostname
        except ValueError:  # not ASCII, or no host name
            return False
        return name is not None and name.lower() in self.hosts


def _size(scope: Scope) -> int:
    target = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    return target + sum(len(name) + len(value) for name, value in scope["headers"])


def _dressed(send: Send, more: list[tuple[bytes, bytes]]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [*message.get("headers", ()), *more]
            names = {name.lower() for name, _ in own}
            added = [pair for pair in SECURITY if pair[0] not in names]
            message = {**message, "headers": [*own, *added]}
        await send(message)

    return sending


async def _preflight(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", ALLOWED_METHODS),
        (b"access-control-allow-headers", ALLOWED_HEADERS),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
