# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What answers requests, as servers, batches and chats see it. Importable without torch.

`Engine` runs a model step by step, with token ids. `Backend` is asynchronous and speaks text: it
wraps an engine (`local.py`), or another server.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from openllm.engine.request import Prompt, Request, SamplingParams, TokenLogprob, Update
from openllm.text.chat import ChatTemplate, Message
from openllm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class EngineStats:
    """State of an engine now, and totals since it began.

    Attributes:
        running: continuations being computed.
        waiting: continuations that have no place yet.
        blocks, free_blocks: of the key-value cache; free ones may hold a cached prefix.
        prompt_tokens, cached_tokens, new_tokens: totals; cached ones are a part of the prompts'.
        preemptions: times that a continuation had to make place for another.
        drafted_tokens, accepted_tokens: by speculative decoding.
        steps: model runs.
    """

    running: int = 0
    waiting: int = 0
    blocks: int = 0
    free_blocks: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    preemptions: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    steps: int = 0


class Engine(Protocol):
    """Runs a model for many requests at once. Not thread-safe: one thread calls it.

    Attributes:
        max_positions: most tokens of prompt and new text together.
    """

    max_positions: int

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises:
            ConfigError: its prompt is empty or too long, or it asks for what the engine lacks.
        """
        ...

    def prepare(self, params: SamplingParams) -> None:
        """Work for a request that may take long; the only method for any thread, at any time.

        Raises:
            ConfigError: the params ask for what cannot be made.
        """
        ...

    def abort(self, request_id: str) -> None:
        """Forget a request and all its continuations; unknown ids are ignored."""
        ...

    def step(self) -> list[Update]:
        """Advance all requests by one model run; returns what is new."""
        ...

    def has_work(self) -> bool:
        """Whether a request is queued or running."""
        ...

    def stats(self) -> EngineStats:
        """Counters."""
        ...

    def reset(self) -> None:
        """Drop all requests and cached text, after a failed step."""
        ...


@dataclass(frozen=True)
class BackendInfo:
    """What a model is.

    Attributes:
        name: as requests call it.
        kind: openllm, onnx, llama.cpp, remote or echo.
        max_positions: most tokens of prompt and new text together; none if unknown.
        precision: of the weights in memory, such as bf16 or int4.
        parameters: number of weights; none if unknown.
        num_bytes: memory that the model takes, without its cache.
        cache_bytes: memory that its cache takes.
        adapters: names of the loaded adapters.
    """

    name: str
    kind: str
    max_positions: int | None = None
    precision: str | None = None
    parameters: int | None = None
    num_bytes: int = 0
    cache_bytes: int = 0
    adapters: Sequence[str] = ()


class Backend(Protocol):
    """Answers requests in text. Closing an iterator that it returned cancels the request.

    Attributes:
        info: what it is.
        tokenizer: none if only a remote server knows it.
        template: none if the model is not made for chat, or only a remote server knows it.
    """

    info: BackendInfo
    tokenizer: Tokenizer | None
    template: ChatTemplate | None

    def generate(
        self, prompt: Prompt, params: SamplingParams, *, adapter: str | None = None
    ) -> AsyncIterator[Update]:
        """Continue a prompt. A text begins with what documents begin with, bos if there is one.

        Raises:
            ConfigError: the prompt is empty or too long, or the params ask for what it lacks.
            EngineError: the engine has failed.
            RemoteError: another server refused, or cannot be reached.
        """
        ...

    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams,
        *,
        tools: Sequence[Any] | None = None,
        adapter: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Update]:
        """Answer a conversation; `variables` are for the template, such as enable_thinking.

        Raises:
            TemplateError: there is no template, or it refuses the messages.
            ConfigError, EngineError, RemoteError: as in `generate`.
        """
        ...

    async def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Ids of a conversation up to the beginning of the answer."""
        ...

    async def encode(self, prompt: Prompt) -> list[int]:
        """Ids of a prompt as `generate` sees it."""
        ...

    async def score(
        self, prompt: Prompt, *, top: int = 0, adapter: str | None = None
    ) -> list[TokenLogprob]:
        """Log-probability of each token of the prompt after the first."""
        ...

    async def embed(self, prompt: Prompt, *, adapter: str | None = None) -> list[float]:
        """A vector of length 1: the mean of the last hidden states, normalised."""
        ...

    def stats(self) -> EngineStats:
        """Counters of the engine; zeros if only a remote server knows them."""
        ...

    def healthy(self) -> bool:
        """Whether requests can be answered."""
        ...

    async def close(self) -> None:
        """Cancel what is running and free the model."""
        ...
