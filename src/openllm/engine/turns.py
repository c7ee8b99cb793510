# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Runs an engine in the thread that asks: who waits for news makes the next step, for all.

So several streams may be read by turns. `backends/worker.py` has a thread of its own instead.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence

import torch

from openllm.core.errors import EngineError
from openllm.engine.backend import Engine
from openllm.engine.backends.worker import continuations
from openllm.engine.request import Request, Update


class Turns:
    """The requests that the caller's thread has begun and not read to their ends."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._inboxes: dict[str, deque[Update]] = {}
        self._process = os.getpid()

    def are_open(self) -> bool:
        """Whether a request has been begun and neither ended nor given up."""
        return bool(self._inboxes)

    def run(self, requests: Sequence[Request]) -> Iterator[Update]:
        """All updates of some requests; closing the iterator cancels them.

        Raises:
            ConfigError: the engine refuses one.
            EngineError: one of them has failed.
        """
        self._check_process()
        inbox: deque[Update] = deque()
        left = {request.id: continuations(request) for request in requests}
        try:
            for request in requests:
                # first, so that it is cancelled even if an interrupt comes between the two
                self._inboxes[request.id] = inbox
                self._engine.add(request)
            while left:
                while not inbox:
                    self._step()
                update = inbox.popleft()
                if update.finish_reason == "error":
                    raise EngineError(update.error or "the engine failed")
                left[update.id] -= update.finish_reason is not None
                if not left[update.id]:
                    del left[update.id]
                yield update
        finally:
            for request in requests:
                if self._inboxes.pop(request.id, None) is not None and request.id in left:
                    self._engine.abort(request.id)

    def _step(self) -> None:
        try:
            updates = self._engine.step()
        except BaseException:
            self._engine.reset()
            reason = "the engine failed while it computed this; try again"
            for request_id, inbox in self._inboxes.items():
                inbox.append(Update(request_id, finish_reason="error", error=reason))
            raise
        for update in updates:
            self._inboxes[update.id].append(update)

    def _check_process(self) -> None:
        """A fork has none of its parent's threads, for which the arithmetic would wait for ever."""
        if os.getpid() != self._process and torch.get_num_threads() > 1:
            raise EngineError(
                "this process is a fork of the one that loaded the model, without its threads; "
                "start processes by 'spawn' and load the model there, or call "
                "torch.set_num_threads(1) here"
            )
