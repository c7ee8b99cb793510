# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Updates of several generations, as they come."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from openllm.engine.request import Update


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
