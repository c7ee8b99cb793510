# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Rates and quotas: what is let through, what is told, what a restart remembers."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serve.asgi import Reply, ask

from openllm.core.errors import ConfigError, StorageError
from openllm.serve.operations.config import LimitSettings
from openllm.serve.operations.exchange import Exchange, answering, current
from openllm.serve.operations.keys import Key, KeyFile
from openllm.serve.operations.limits import MAX_CLIENTS, Bucket, RateLimits, format_reset
from openllm.serve.operations.usage import UsageBook, Use

WORK = "/v1/chat/completions"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Server:
    """Rate limits around an endpoint that costs so many tokens."""

    def __init__(self, usage: UsageBook | None = None, tokens: int = 0, **limits: int) -> None:
        self.clock, self.tokens, self.calls = Clock(), tokens, 0
        self.usage = usage or UsageBook(None)
        self.app = RateLimits(self._endpoint, LimitSettings(**limits), self.usage, clock=self.clock)

    async def _endpoint(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        exchange = current()
        assert exchange is not None
        exchange.prompt_tokens, exchange.new_tokens = 1, max(0, self.tokens - 1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    def call(self, path: str = WORK, key: Key | None = None, size: int = 0, **how: Any) -> Reply:
        exchange = Exchange("id", client=how.pop("client", "10.0.0.1"), key=key)
        length = [(b"content-length", str(size).encode())]

        async def run() -> Reply:
            with answering(exchange):
                return await ask(self.app, "POST", path, headers=length)

        return asyncio.run(run())


def a_key(tmp_path: Path, name: str = "alice", **settings: Any) -> Key:
    return KeyFile(tmp_path / "keys.json").add(name, **settings)[0]


def test_requests_per_minute_with_the_headers_of_openai() -> None:
    server = Server(requests_per_minute=3)
    for remaining, reset in (("2", "20s"), ("1", "40s"), ("0", "1m0s")):
        reply = server.call()
        assert reply.status == 200
        assert reply.header("x-ratelimit-limit-requests") == "3"
        assert reply.header("x-ratelimit-remaining-requests") == remaining
        assert reply.header("x-ratelimit-reset-requests") == reset
    reply = server.call()
    assert (reply.status, reply.code) == (429, "rate_limit_exceeded")
    assert reply.json()["error"]["type"] == "rate_limit_error"
    assert reply.header("retry-after") == "20"
    server.clock.now += 19.9
    assert server.call().status == 429
    server.clock.now += 0.2
    assert server.call().status == 200
    assert server.calls == 4


def test_tokens_are_taken_at_the_end_and_a_debt_must_be_filled() -> None:
    server = Server(tokens=150, tokens_per_minute=100)
    assert server.call().status == 200
    reply = server.call()
    assert reply.status == 429 and "100 tokens per minute" in reply.json()["error"]["message"]
    server.clock.now += 30  # -50 of debt
    assert server.call().status == 429
    server.clock.now += 1
    assert server.call().status == 200


def test_the_estimate_is_given_back() -> None:
    server = Server(tokens=10, tokens_per_minute=1000)
    assert server.call(size=3200).status == 200  # 801 tokens by its size
    reply = server.call(size=3200)
    assert reply.status == 200  # only ten were used


def test_requests_at_the_same_time_cannot_all_use_the_same_tokens() -> None:
    server = Server(tokens_per_minute=100)
    gate, entered = asyncio.Event(), []

    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        entered.append(1)
        await gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def one() -> int | None:
        with answering(Exchange("id")):
            length = [(b"content-length", b"160")]  # 41 tokens
            return (await ask(server.app, "POST", WORK, headers=length)).status

    async def run() -> list[int | None]:
        server.app.app = endpoint
        tasks = [asyncio.create_task(one()) for _ in range(4)]
        await asyncio.sleep(0.01)
        gate.set()
        return sorted(await asyncio.gather(*tasks))

    assert asyncio.run(run()) == [200, 200, 429, 429] and len(entered) == 2


def test_clients_do_not_share_their_limits(tmp_path: Path) -> None:
    server = Server(requests_per_minute=1)
    alice, bob = a_key(tmp_path), a_key(tmp_path, "bob", requests_per_minute=2)
    assert server.call(key=alice).status == 200
    assert server.call(key=alice, client="10.0.0.9").status == 429
    assert [server.call(key=bob).status for _ in range(3)] == [200, 200, 429]
    assert server.call().status == 200
    assert server.call().status == 429
    assert server.call(client="10.0.0.2").status == 200


def test_what_costs_nothing_is_not_limited() -> None:
    server = Server(requests_per_minute=1)
    assert [server.call("/v1/models").status for _ in range(5)] == [200] * 5


def test_forgotten_clients_leave_no_memory() -> None:
    server = Server(requests_per_minute=1)
    for index in range(MAX_CLIENTS + 50):
        server.app._of(Exchange("id", client=str(index)))
    assert len(server.app._clients) == MAX_CLIENTS


def test_a_quota_is_kept_over_a_restart_and_renewed_at_midnight(tmp_path: Path) -> None:
    key = a_key(tmp_path, requests_per_day=2, tokens_per_day=1000)
    now = [datetime(2027, 1, 31, 23, 59, 0, tzinfo=UTC)]
    path = tmp_path / "usage.json"

    def start() -> Server:
        return Server(UsageBook(path, now=lambda: now[0]), tokens=10)

    server = start()
    assert [server.call(key=key).status for _ in range(2)] == [200, 200]
    server.usage.flush()
    server = start()
    reply = server.call(key=key)
    assert (reply.status, reply.code) == (429, "insufficient_quota")
    assert reply.header("retry-after") == "60"
    assert (server.usage.of(key.id).requests, server.usage.of(key.id).tokens) == (2, 20)
    now[0] += timedelta(minutes=1)
    assert server.call(key=key).status == 200
    assert server.usage.of(key.id).requests == 1


def test_tokens_per_day(tmp_path: Path) -> None:
    key = a_key(tmp_path, tokens_per_day=25)
    server = Server(tokens=10)
    assert [server.call(key=key).status for _ in range(4)] == [200, 200, 200, 429]
    assert server.usage.of(key.id).requests == 3


def test_the_use_is_private_and_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "usage.json"
    book = UsageBook(path)
    book.add("id", requests=1, tokens=2)
    book.flush()
    assert path.stat().st_mode & 0o077 == 0
    assert UsageBook(path).of("id").tokens == 2
    text = path.read_text()
    for damaged in (text[:-9], "[]", text.replace("2", '"x"'), text.replace("[", "{", 1)):
        path.write_text(damaged)
        with pytest.raises(ConfigError):
            UsageBook(path)


def test_servers_that_share_the_file_share_the_quotas(tmp_path: Path) -> None:
    path = tmp_path / "usage.json"
    one, other = UsageBook(path), UsageBook(path)
    one.add("a", requests=1, tokens=5)
    other.add("a", requests=2, tokens=6)
    other.add("b", requests=1)
    one.flush()
    other.flush()
    assert UsageBook(path).of("a") == other.of("a") == Use(3, 11)
    one.add("b", tokens=1)
    one.flush()
    assert (one.of("a"), one.of("b")) == (Use(3, 11), Use(1, 1))
    one.flush()  # nothing is counted twice
    assert UsageBook(path).of("b") == Use(1, 1)


@pytest.mark.parametrize("meanwhile", [0, 1])
def test_what_could_not_be_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: int
) -> None:
    book = UsageBook(tmp_path / "usage.json")

    def full(*args: Any) -> None:
        if meanwhile:
            book.add("a", tokens=meanwhile)
        raise StorageError("the disk is full")

    book.add("a", requests=1, tokens=2)
    with monkeypatch.context() as patch:
        patch.setattr("openllm.serve.operations.usage.write_private", full)
        with pytest.raises(StorageError):
            book.flush()
    assert book.of("a") == Use(1, 2 + meanwhile)
    book.flush()
    assert UsageBook(book.path).of("a") == book.of("a") == Use(1, 2 + meanwhile)


def test_a_server_whose_clock_is_behind_does_not_undo_the_new_day(tmp_path: Path) -> None:
    midnight = datetime(2027, 2, 1, tzinfo=UTC)
    late = UsageBook(tmp_path / "usage.json", now=lambda: midnight - timedelta(seconds=1))
    early = UsageBook(tmp_path / "usage.json", now=lambda: midnight)
    late.add("a", tokens=1)
    early.add("a", tokens=2)
    early.flush()
    late.flush()
    assert UsageBook(early.path, now=lambda: midnight).of("a") == Use(0, 2)


def test_use_is_written_while_the_server_runs(tmp_path: Path) -> None:
    key, path = a_key(tmp_path), tmp_path / "usage.json"
    server = Server(UsageBook(path), tokens=3)
    server.usage._written -= 10

    async def run() -> None:
        with answering(Exchange("id", key=key)):
            await ask(server.app, "POST", WORK)
        assert server.app._flushing is not None
        await server.app._flushing

    asyncio.run(run())
    assert UsageBook(path).of(key.id).tokens == 3


@given(
    per_minute=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50)), max_size=50),
)
def test_a_bucket_never_gives_more_than_its_rate(
    per_minute: int, steps: list[tuple[float, int]]
) -> None:
    bucket, now, taken = Bucket(per_minute, 0.0), 0.0, 0
    for pause, amount in steps:
        now += pause
        bucket.fill(now)
        if bucket.wait_s(amount) <= 0:
            bucket.level -= amount
            taken += amount
        else:
            wait = bucket.wait_s(amount)
            later = Bucket(per_minute, 0.0)
            later.level, later._at = bucket.level, now
            later.fill(now + wait + 1e-6)
            assert later.wait_s(amount) < 1e-3
        assert bucket.level <= per_minute
    # one bucket full at the start, the rest by the rate; one request may overdraw an empty one
    assert taken <= per_minute + now * per_minute / 60 + 50


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.12, "120ms"), (1, "1s"), (59.7, "1m0s"), (75.3, "1m15s"), (3600, "60m0s")],
)
def test_format_reset(seconds: float, text: str) -> None:
    assert format_reset(seconds) == text
