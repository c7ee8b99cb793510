# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What is known of a request while it is answered: for logs, metrics, limits and traces."""

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from openllm.serve.operations.keys import Key

Outcome = Literal["answered", "refused", "disconnected", "timeout", "failed"]


@dataclass
class Exchange:
    """A request and its answer.

    Attributes:
        id: as the client sees it in `X-Request-Id`.
        method: of HTTP.
        route: a name out of a short list, never the path that the client sent.
        client: address of the client.
        started: monotonic time at which the headers had arrived.
        key: whose request it is; none if keys are not asked for, or it was refused before.
        model: as it is loaded, not as the client wrote it.
        status: of the answer.
        outcome: how it ended.
        reason: code of a refusal, or type and place of a failure; never a message.
        queued_s: time spent waiting for a turn.
        prompt_tokens, cached_tokens, new_tokens: that the models computed or found for it.
        computing, first_token, last_token: monotonic times; a model begins, the first token, ...
        body: what the client sent; kept only if prompts are logged.
    """

    id: str
    method: str = "GET"
    route: str = "other"
    client: str = ""
    started: float = field(default_factory=time.perf_counter)
    key: Key | None = None
    model: str | None = None
    status: int | None = None
    outcome: Outcome = "answered"
    reason: str | None = None
    queued_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    computing: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    body: bytes | None = None
    span: Any = None

    @property
    def total_tokens(self) -> int:
        """Of prompts and answers."""
        return self.prompt_tokens + self.new_tokens

    @property
    def first_token_s(self) -> float | None:
        """Time from the request to the first token."""
        return None if self.first_token is None else self.first_token - self.started

    @property
    def token_s(self) -> float | None:
        """Mean time between two tokens of the answer; none if there are fewer than two."""
        if self.first_token is None or self.last_token is None or self.new_tokens < 2:
            return None
        return (self.last_token - self.first_token) / (self.new_tokens - 1)

    def saw_tokens(self, new: int) -> None:
        """New tokens have come from a model."""
        now = time.perf_counter()
        if self.first_token is None:
            self.first_token = now
        self.last_token = now
        self.new_tokens += new

    def refused(self, code: str) -> None:
        """The request is answered with an error that has this code."""
        self.outcome, self.reason = "refused", code

    def failed(self, error: BaseException) -> None:
        """The server is at fault; the error's message is not kept, as it may hold a prompt."""
        self.outcome, self.reason = "failed", place(error)


def place(error: BaseException) -> str:
    """Type of an error and where it happened."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "openllm" in PurePath(frame.filename).parts] or frames
    if not ours:
        return type(error).__name__
    return f"{type(error).__name__} at {PurePath(ours[-1].filename).name}:{ours[-1].lineno}"


_CURRENT: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


def current() -> Exchange | None:
    """The request that the calling task answers; none outside of one."""
    return _CURRENT.get()


@contextmanager
def answering(exchange: Exchange) -> Iterator[None]:
    """Make `exchange` the current one, for this task and those that it starts."""
    token = _CURRENT.set(exchange)
    try:
        yield
    finally:
        _CURRENT.reset(token)
