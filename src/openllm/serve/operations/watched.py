# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Models as one request sees them: only those that its key may use, and each token is counted."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from openllm.core.errors import BusyError, OpenLLMError, RemoteError
from openllm.core.log import warn
from openllm.engine.backend import Backend, BackendInfo, EngineStats
from openllm.engine.request import Prompt, SamplingParams, TokenLogprob, Update
from openllm.serve.errors import ApiError
from openllm.serve.operations.exchange import Exchange, current
from openllm.serve.service import Models, no_such_model
from openllm.text.chat import Message

UNAVAILABLE_S = 30
"""Seconds after which to ask again for a model that could not be loaded."""


class WatchedModels:
    """`Models` of a server with keys and counters."""

    def __init__(self, models: Models) -> None:
        self.inner = models

    def names(self) -> Sequence[str]:
        """See `Models.names`; a key may be limited to some."""
        exchange = current()
        key = exchange.key if exchange is not None else None
        return [name for name in self.inner.names() if key is None or key.allows_model(name)]

    def info(self, name: str) -> BackendInfo | None:
        """See `Models.info`."""
        return self.inner.info(name)

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[Backend]:
        """See `Models.lease`."""
        async with AsyncExitStack() as stack:
            try:
                backend = await stack.enter_async_context(self.inner.lease(name))
            except (BusyError, RemoteError):
                raise
            except (OpenLLMError, OSError) as error:
                raise self._unusable(name, error) from error
            exchange = current()
            if exchange is None:
                yield backend
                return
            exchange.model = name
            yield WatchedBackend(backend, exchange)

    def _unusable(self, name: str, error: Exception) -> ApiError:
        """Why a model could not be had. It is not the client's fault, whatever kind of error it is,
        and its words, such as paths and the names of other models, are not for the client."""
        if name not in self.inner.names():  # it was removed in this moment
            return no_such_model()
        warn(f"the model '{name}' cannot be loaded: {error}")
        return ApiError(
            "this model cannot be loaded now; the server's log says why",
            status=503,
            code="model_unavailable",
            headers={"Retry-After": str(UNAVAILABLE_S)},
        )

    def loaded(self) -> Mapping[str, Backend]:
        """See `Models.loaded`."""
        return self.inner.loaded()

    async def close(self) -> None:
        """See `Models.close`."""
        await self.inner.close()


class WatchedBackend:
    """A backend in the hands of one request, which counts what it uses."""

    def __init__(self, backend: Backend, exchange: Exchange) -> None:
        self._inner, self._exchange = backend, exchange
        self.info = backend.info
        self.tokenizer = backend.tokenizer
        self.template = backend.template

    async def generate(
        self, prompt: Prompt, params: SamplingParams, *, adapter: str | None = None
    ) -> AsyncIterator[Update]:
        """See `Backend.generate`."""
        if self.tokenizer is not None:
            prompt = await self._inner.encode(prompt)
        self._saw_prompt(prompt)
        stream = self._inner.generate(prompt, params, adapter=adapter)
        async for update in self._counted(stream):
            yield update

    async def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams,
        *,
        tools: Sequence[Any] | None = None,
        adapter: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Update]:
        """See `Backend.chat`."""
        if self.tokenizer is not None and self.template is not None:
            ids = await self._inner.encode_chat(messages, tools=tools, variables=variables)
            async for update in self.generate(ids, params, adapter=adapter):
                yield update
            return
        stream = self._inner.chat(
            messages, params, tools=tools, adapter=adapter, variables=variables
        )
        async for update in self._counted(stream):
            yield update

    async def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """See `Backend.encode_chat`."""
        return await self._inner.encode_chat(messages, tools=tools, variables=variables)

    async def encode(self, prompt: Prompt) -> list[int]:
        """See `Backend.encode`."""
        return await self._inner.encode(prompt)

    async def score(
        self, prompt: Prompt, *, top: int = 0, adapter: str | None = None
    ) -> list[TokenLogprob]:
        """See `Backend.score`."""
        found = await self._inner.score(prompt, top=top, adapter=adapter)
        self._exchange.prompt_tokens += len(found) + 1
        return found

    async def embed(self, prompt: Prompt, *, adapter: str | None = None) -> list[float]:
        """See `Backend.embed`."""
        if self.tokenizer is not None:
            prompt = await self._inner.encode(prompt)
        self._saw_prompt(prompt)
        return await self._inner.embed(prompt, adapter=adapter)

    def stats(self) -> EngineStats:
        """See `Backend.stats`."""
        return self._inner.stats()

    def healthy(self) -> bool:
        """See `Backend.healthy`."""
        return self._inner.healthy()

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._inner.close()

    def _saw_prompt(self, prompt: Prompt) -> None:
        if self._exchange.computing is None:
            self._exchange.computing = time.perf_counter()
        if not isinstance(prompt, str):
            self._exchange.prompt_tokens += len(prompt)

    async def _counted(self, stream: AsyncIterator[Update]) -> AsyncIterator[Update]:
        exchange, cached, seen = self._exchange, 0, 0
        try:
            async for update in stream:
                if update.token_ids or update.text:
                    exchange.saw_tokens(len(update.token_ids))
                    seen += len(update.token_ids)
                if update.cached_tokens > cached:
                    exchange.cached_tokens += update.cached_tokens - cached
                    cached = update.cached_tokens
                if update.remote is not None:  # only the other server knows
                    exchange.prompt_tokens += update.remote.prompt_tokens or 0
                    exchange.new_tokens += max(0, (update.remote.new_tokens or 0) - seen)
                yield update
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()
