# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Updates of several generations, as they come."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from openllm.engine.request import RemoteNews, Update

Result = TypeVar("Result")


async def batches(
    streams: Sequence[AsyncIterator[Update]],
) -> AsyncIterator[list[tuple[int, Update]]]:
    """All that is new, with the index of its stream, whenever something is.

    What arrives while the last batch is still being sent comes in one batch, so a slow client costs
    fewer messages, not more. Closing cancels all streams; the first error ends all.
    """
    waiting: list[tuple[int, Update]] = []
    wake = asyncio.Event()

    async def pump(index: int, stream: Any) -> None:
        async with aclosing(stream):
            async for update in stream:
                waiting.append((index, update))
                wake.set()

    tasks = [asyncio.create_task(pump(index, one)) for index, one in enumerate(streams)]
    for task in tasks:
        task.add_done_callback(lambda _: wake.set())
    try:
        running = bool(tasks)
        while running:
            await wake.wait()
            wake.clear()
            # looked at before the batch is taken: what comes later wakes us again
            running = not all(task.done() for task in tasks)
            batch, waiting[:] = waiting[:], []
            if batch:
                yield batch
            for task in tasks:
                if task.done():
                    task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def together(works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results of all works, run at the same time; the first error cancels the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        if tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def joined(updates: Sequence[Update]) -> Update:
    """Several updates of one continuation as one."""
    if len(updates) == 1:
        return updates[0]
    last = updates[-1]
    logprobs = None
    if any(update.logprobs is not None for update in updates):
        logprobs = [one for update in updates for one in update.logprobs or ()]
    return Update(
        last.id,
        last.index,
        "".join(update.text for update in updates),
        [token for update in updates for token in update.token_ids],
        logprobs,
        finish_reason=last.finish_reason,
        cached_tokens=max(update.cached_tokens for update in updates),
        remote=_joined_news([update.remote for update in updates if update.remote is not None]),
    )


def _joined_news(news: Sequence[RemoteNews]) -> RemoteNews | None:
    """What another server said, as one; it counts tokens once, at the end."""
    if not news:
        return None
    return RemoteNews(
        [call for one in news for call in one.tool_calls],
        "".join(one.reasoning for one in news),
        news[-1].prompt_tokens,
        news[-1].new_tokens,
    )
