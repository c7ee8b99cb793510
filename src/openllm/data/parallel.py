# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""An ordered map over worker processes that holds only a few items at a time."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from openllm.core.errors import DataError
from openllm.core.log import Meter

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[..., Result], items: Iterable[Item], workers: int, *shared: Any
) -> Iterator[Result]:
    """Yield `function(item, *shared)` for each item, in the order of `items`.

    Args:
        function: a module-level function.
        items: read only as fast as results are taken, two items ahead per worker.
        workers: number of processes; 1 computes in this one.
        shared: passed to each worker once.

    Raises:
        DataError: a worker was killed, most likely because memory ran out.
    """
    if workers <= 1:
        for item in items:
            yield function(item, *shared)
        return
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(function, shared))
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_call, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise DataError(
            "a worker process was killed, most likely because memory ran out; "
            "use fewer workers, for example --workers 1"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def metered(items: Iterable[Item], meter: Meter, size: Callable[[Item], float]) -> Iterator[Item]:
    """Pass the items on, counting them on a progress bar."""
    for item in items:
        yield item
        meter.advance(size(item))


_work: Callable[[Any], Any]


def _begin(function: Callable[..., Any], shared: tuple[Any, ...]) -> None:
    """Set up a worker: it leaves Ctrl-C to the parent, and ends with its parent."""
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def work(item: Any) -> Any:
        return function(item, *shared)

    _work = work


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(item: Any) -> Any:
    return _work(item)
