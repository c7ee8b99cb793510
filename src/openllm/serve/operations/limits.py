# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Rate limits by requests and by tokens, per key or else per address, and daily quotas per key.

A token bucket holds at most a minute's worth. What a request will cost in tokens is known only at
its end: it takes an estimate from its size at once, and the rest when it is answered. A bucket may
fall below zero that way, and then lets nothing pass until it is filled again.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openllm.core.errors import OpenLLMError
from openllm.core.log import warn
from openllm.serve.operations.config import LimitSettings
from openllm.serve.operations.exchange import Exchange, current
from openllm.serve.operations.keys import Key
from openllm.serve.operations.refusal import Refusal, too_busy
from openllm.serve.operations.rules import RULES, Rule, rule_of
from openllm.serve.operations.usage import UsageBook

MAX_CLIENTS = 10_000
"""Clients whose buckets are remembered; the one that was away longest is forgotten first."""

BYTES_PER_TOKEN = 4
"""For the estimate before a request is answered."""


class Bucket:
    """Fills up evenly to `per_minute` within a minute."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self.level = float(per_minute)
        self._at = now

    def fill(self, now: float) -> None:
        """Add what has come since the last time."""
        self.level = min(self.per_minute, self.level + (now - self._at) * self.per_minute / 60)
        self._at = now

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` is there; more than it can hold counts as all that it can hold."""
        return max(0.0, (min(amount, self.per_minute) - self.level) * 60 / self.per_minute)

    def full_s(self) -> float:
        """Seconds until it is full."""
        return (self.per_minute - self.level) * 60 / self.per_minute


class _Buckets:
    """Of one client."""

    def __init__(self, requests: int | None, tokens: int | None, now: float) -> None:
        self.limits = requests, tokens
        self.requests = None if requests is None else Bucket(requests, now)
        self.tokens = None if tokens is None else Bucket(tokens, now)

    def fill(self, now: float) -> None:
        for bucket in (self.requests, self.tokens):
            if bucket is not None:
                bucket.fill(now)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """`x-ratelimit-*` as OpenAI sends them."""
        found: list[tuple[bytes, bytes]] = []
        for what, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            if bucket is not None:
                facts = {
                    "limit": str(bucket.per_minute),
                    "remaining": str(max(0, int(bucket.level))),
                    "reset": format_reset(bucket.full_s()),
                }
                found += [
                    (f"x-ratelimit-{fact}-{what}".encode(), value.encode())
                    for fact, value in facts.items()
                ]
        return found


def format_reset(seconds: float) -> str:
    """`75.3` -> `1m15s`, `0.12` -> `120ms`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


class RateLimits:
    """Refuses with 429 and `Retry-After` what goes beyond the limits of its key or address."""

    def __init__(
        self,
        app: ASGIApp,
        settings: LimitSettings,
        usage: UsageBook,
        *,
        rules: tuple[Rule, ...] = RULES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app, self.settings, self.usage, self.rules = app, settings, usage, rules
        self._clock = clock
        self._clients: OrderedDict[str, _Buckets] = OrderedDict()
        self._flushing: asyncio.Task[None] | None = None
        self._told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer why not."""
        rule = rule_of(scope["path"], self.rules) if scope["type"] == "http" else None
        exchange = current()
        if rule is None or rule.work is None or exchange is None:
            await self.app(scope, receive, send)
            return
        buckets = self._of(exchange)
        estimate = _estimate(scope)
        try:
            self._take(exchange.key, buckets, estimate)
        except Refusal as refusal:
            await refusal.send(_with_headers(send, buckets))
            return
        try:
            await self.app(scope, receive, _with_headers(send, buckets))
        finally:
            self._settle(exchange, buckets, estimate)

    def _of(self, exchange: Exchange) -> _Buckets:
        key, now = exchange.key, self._clock()
        requests, tokens = self.settings.requests_per_minute, self.settings.tokens_per_minute
        if key is not None:
            requests = key.requests_per_minute or requests
            tokens = key.tokens_per_minute or tokens
        name = f"address {exchange.client}" if key is None else f"key {key.id}"
        buckets = self._clients.get(name)
        if buckets is None or buckets.limits != (requests, tokens):
            buckets = self._clients[name] = _Buckets(requests, tokens, now)
        self._clients.move_to_end(name)
        if len(self._clients) > MAX_CLIENTS:
            self._clients.popitem(last=False)
        buckets.fill(now)
        return buckets

    def _take(self, key: Key | None, buckets: _Buckets, estimate: int) -> None:
        """Take one request and the estimated tokens, or nothing at all."""
        if key is not None:
            self._check_quota(key)
        for what, bucket, amount in (
            ("requests", buckets.requests, 1),
            ("tokens", buckets.tokens, estimate),
        ):
            if bucket is not None and (wait := bucket.wait_s(amount)) > 0:
                raise too_busy(
                    f"the limit of {bucket.per_minute} {what} per minute is reached; try again in "
                    f"{format_reset(wait)}",
                    "rate_limit_exceeded",
                    wait,
                    status=429,
                )
        if buckets.requests is not None:
            buckets.requests.level -= 1
        if buckets.tokens is not None:
            buckets.tokens.level -= estimate
        if key is not None:
            self.usage.add(key.id, requests=1)

    def _check_quota(self, key: Key) -> None:
        use = self.usage.of(key.id)
        for what, used, quota in (
            ("requests", use.requests, key.requests_per_day),
            ("tokens", use.tokens, key.tokens_per_day),
        ):
            if quota is not None and used >= quota:
                left = self.usage.seconds_left()
                raise too_busy(
                    f"this key's quota of {quota} {what} per day is used up; it is renewed at "
                    "midnight UTC",
                    "insufficient_quota",
                    left,
                    status=429,
                )

    def _settle(self, exchange: Exchange, buckets: _Buckets, estimate: int) -> None:
        """Replace the estimate by what the request has really cost."""
        if buckets.tokens is not None:
            buckets.tokens.level -= exchange.total_tokens - estimate
        if exchange.key is None:
            return
        self.usage.add(exchange.key.id, tokens=exchange.total_tokens)
        if self.usage.due() and (self._flushing is None or self._flushing.done()):
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        try:
            await asyncio.to_thread(self.usage.flush)
            self._told = False
        except (OpenLLMError, OSError) as error:
            if not self._told:
                warn(f"the use of keys is not kept: {error}")
            self._told = True


def _estimate(scope: Scope) -> int:
    """Tokens that a request takes at least, by the size that it states."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and len(value) < 19:
            return int(value) // BYTES_PER_TOKEN + 1
    return 1


def _with_headers(send: Send, buckets: _Buckets) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *buckets.headers()]}
        await send(message)

    return sending
