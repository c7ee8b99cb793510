# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Updates of several generations, as they come."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from openllm.engine.request import RemoteNews, TokenLogprob, Update
from openllm.serve.openai.batching import batches, joined, together


class Source:
    """Updates that come when they are let go."""

    def __init__(self, name: str, count: int, *, fails: bool = False) -> None:
        self.name, self.count, self.fails = name, count, fails
        self.gates = [asyncio.Event() for _ in range(count)]
        self.closed = False

    async def __call__(self) -> AsyncIterator[Update]:
        try:
            for number in range(self.count):
                await self.gates[number].wait()
                yield Update(self.name, text=str(number))
            if self.fails:
                raise ValueError(self.name)
        finally:
            self.closed = True


def test_what_waits_comes_at_once():
    async def run() -> None:
        one, two = Source("a", 3), Source("b", 2)
        news = batches([one(), two()])
        one.gates[0].set()
        assert [(i, u.text) for i, u in await anext(news)] == [(0, "0")]
        for gate in (*one.gates, *two.gates):
            gate.set()
        await asyncio.sleep(0.01)  # the reader is slow
        batch = await anext(news)
        assert sorted((i, u.text) for i, u in batch) == [(0, "1"), (0, "2"), (1, "0"), (1, "1")]
        assert [one async for one in news] == []

    asyncio.run(run())


def test_nothing_is_lost_or_doubled_with_any_timing():
    async def run() -> None:
        sources = [Source(str(i), 20) for i in range(5)]

        async def open_gates() -> None:
            for number in range(20):
                for source in sources:
                    source.gates[number].set()
                    if (number + int(source.name)) % 3 == 0:
                        await asyncio.sleep(0)

        opening = asyncio.create_task(open_gates())
        found: dict[int, list[str]] = {i: [] for i in range(5)}
        async for batch in batches([source() for source in sources]):
            for i, update in batch:
                found[i].append(update.text)
        await opening
        assert found == {i: [str(n) for n in range(20)] for i in range(5)}

    asyncio.run(run())


def test_no_streams_end_at_once():
    async def run() -> list[object]:
        return [batch async for batch in batches([])]

    assert asyncio.run(run()) == []


def test_an_error_ends_all_after_what_came_before_it():
    async def run() -> None:
        good, bad = Source("good", 5), Source("bad", 1, fails=True)
        bad.gates[0].set()
        texts = []
        with pytest.raises(ValueError, match="bad"):
            async for batch in batches([good(), bad()]):
                texts += [update.text for _, update in batch]
        assert texts == ["0"]
        assert good.closed and bad.closed

    asyncio.run(run())


def test_closing_closes_all_streams():
    async def run() -> None:
        sources = [Source("a", 2), Source("b", 2)]
        sources[0].gates[0].set()
        news = batches([source() for source in sources])
        await anext(news)
        await news.aclose()
        assert all(source.closed for source in sources)

    asyncio.run(run())


def test_together_gives_results_in_order_and_cancels_after_an_error():
    ended = []

    async def work(seconds: float, fails: bool = False) -> float:
        try:
            await asyncio.sleep(seconds)
            if fails:
                raise ValueError("no")
            return seconds
        finally:
            ended.append(seconds)

    assert asyncio.run(together([work(0.02), work(0.01)])) == [0.02, 0.01]
    assert asyncio.run(together([])) == []
    ended.clear()
    with pytest.raises(ValueError, match="no"):
        asyncio.run(together([work(60), work(0.01, fails=True)]))
    assert sorted(ended) == [0.01, 60]


def test_joined_updates_lose_nothing():
    one = Update("r", 1, "ab", [1, 2], [TokenLogprob(1, -1.0), TokenLogprob(2, -2.0)],
                 cached_tokens=7, remote=RemoteNews([{"index": 0}], "so "))  # fmt: skip
    two = Update("r", 1, "c", [3], [TokenLogprob(3, -3.0)], finish_reason="length",
                 remote=RemoteNews([{"index": 1}], "that", 5, 6))  # fmt: skip
    both = joined([one, two])
    assert (both.index, both.text, list(both.token_ids)) == (1, "abc", [1, 2, 3])
    assert [one.token_id for one in both.logprobs or ()] == [1, 2, 3]
    assert (both.finish_reason, both.cached_tokens) == ("length", 7)
    assert both.remote == RemoteNews([{"index": 0}, {"index": 1}], "so that", 5, 6)
    assert joined([one]) is one
    assert joined([Update("r", text="a"), Update("r", text="b")]).logprobs is None
