# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A backend that runs an engine in this process."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from operator import index
from typing import Any

from openllm.core.errors import ConfigError, TemplateError
from openllm.engine.backend import BackendInfo, Engine, EngineStats
from openllm.engine.backends.worker import EngineWorker, Result
from openllm.engine.request import Prompt, Request, SamplingParams, TokenLogprob, Update
from openllm.text.chat import ChatTemplate, Message, encode_chat
from openllm.text.tokenizer import Tokenizer


class LocalBackend:
    """Text in, text out, over an engine that runs in a thread of its own.

    Attributes:
        adapter_host: what loads and unloads adapters by `load_adapter` and `unload_adapter`, if the
            engine takes any.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        info: BackendInfo,
    ) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self.template = template
        self.adapter_host: Any = None
        self._worker = EngineWorker(engine)
        self._ids = map("request-{}".format, itertools.count())

    async def generate(
        self, prompt: Prompt, params: SamplingParams, *, adapter: str | None = None
    ) -> AsyncGenerator[Update]:
        """See `Backend.generate`."""
        ids = await self.encode(prompt)
        request = Request(next(self._ids), ids, params, adapter=adapter)
        async with aclosing(self.run(request)) as updates:
            async for update in updates:
                yield update

    async def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams,
        *,
        tools: Sequence[Any] | None = None,
        adapter: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[Update]:
        """See `Backend.chat`."""
        ids = await self.encode_chat(messages, tools=tools, variables=variables)
        request = Request(next(self._ids), ids, params, adapter=adapter)
        async with aclosing(self.run(request)) as updates:
            async for update in updates:
                yield update

    async def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """See `Backend.encode_chat`."""
        if self.template is None:
            raise TemplateError(
                f"the model '{self.info.name}' has no chat template, so it is not made for chat; "
                "send a prompt to be continued instead"
            )
        return await asyncio.to_thread(
            encode_chat,
            self.tokenizer,
            self.template,
            messages,
            add_generation_prompt=True,
            tools=tools,
            **(variables or {}),
        )

    async def encode(self, prompt: Prompt) -> list[int]:
        """See `Backend.encode`."""
        if not isinstance(prompt, str):
            return encode_prompt(self.tokenizer, prompt)
        return await asyncio.to_thread(encode_prompt, self.tokenizer, prompt)

    async def score(
        self, prompt: Prompt, *, top: int = 0, adapter: str | None = None
    ) -> list[TokenLogprob]:
        """See `Backend.score`."""
        ids = await self.encode(prompt)
        request = Request(next(self._ids), ids, kind="score", adapter=adapter, top=top)
        return [one async for update in self.run(request) for one in update.logprobs or ()]

    async def embed(self, prompt: Prompt, *, adapter: str | None = None) -> list[float]:
        """See `Backend.embed`."""
        ids = await self.encode(prompt)
        request = Request(next(self._ids), ids, kind="embed", adapter=adapter)
        return [x async for update in self.run(request) for x in update.vector or ()]

    def stats(self) -> EngineStats:
        """See `Backend.stats`."""
        return self._worker.stats()

    def healthy(self) -> bool:
        """See `Backend.healthy`."""
        return self._worker.healthy()

    async def call(self, function: Callable[[], Result]) -> Result:
        """Run a function between two steps of the engine, such as one that changes weights."""
        return await self._worker.call(function)

    async def close(self) -> None:
        """See `Backend.close`."""
        await asyncio.to_thread(self._worker.close)

    def run(self, request: Request) -> AsyncGenerator[Update]:
        """Run a request of token ids; closing the iterator cancels it."""
        return self._worker.stream(request)


def encode_prompt(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    """Ids of a prompt; a text begins with what documents begin with.

    Raises:
        ConfigError: there are none, one is outside the vocabulary, or they are no whole numbers.
    """
    if isinstance(prompt, str):
        ids = [*tokenizer.prefix, *tokenizer.encode(prompt)]
    else:
        try:
            ids = [index(token) for token in prompt]
        except TypeError:
            raise ConfigError(
                "a prompt is a text or a list of token ids; give one of them"
            ) from None
    if not ids:
        raise ConfigError(
            "the prompt is empty, and this model has no token for the beginning of a document; "
            "give a prompt"
        )
    beyond = max(ids) if min(ids) >= 0 else min(ids)
    if not 0 <= beyond < tokenizer.vocab_size:
        raise ConfigError(
            f"the prompt has token {beyond}, but the vocabulary ends at "
            f"{tokenizer.vocab_size - 1}; use the model's own tokenizer"
        )
    return ids
