# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""From a request to a running generation, whatever its endpoint."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openllm.core.errors import ConfigError
from openllm.engine.backend import Backend
from openllm.engine.request import Prompt, SamplingParams, Update
from openllm.serve.errors import ApiError
from openllm.text.chat import Message

UNKNOWN_ROOM = 2048
"""New tokens where neither the request nor the model says how many there may be."""

RESERVED = ("add_generation_prompt", "messages", "self", "template", "tokenizer", "tools")
"""Names that a template's variables cannot have: the request has fields for these."""

MakeParams = Callable[[int], SamplingParams]
"""The settings for a number of new tokens."""


@dataclass(frozen=True)
class Run:
    """A generation under way.

    Attributes:
        prompt_ids: none if only a remote server knows them.
        params: with which it runs.
        updates: closing them cancels it.
    """

    prompt_ids: list[int] | None
    params: SamplingParams
    updates: AsyncIterator[Update]


async def run_prompt(
    backend: Backend,
    prompt: Prompt,
    make_params: MakeParams,
    max_new_tokens: int | None,
    *,
    adapter: str | None = None,
) -> Run:
    """Continue a prompt; more new tokens than there is room for are cut to the room.

    Raises:
        ApiError: the prompt is too long.
        ConfigError, EngineError, RemoteError: as in `Backend.generate`.
    """
    if backend.tokenizer is None:
        params = make_params(max_new_tokens or UNKNOWN_ROOM)
        return Run(None, params, backend.generate(prompt, params, adapter=adapter))
    ids = await backend.encode(prompt)
    params = make_params(room_for(backend, ids, max_new_tokens, "prompt"))
    return Run(ids, params, backend.generate(ids, params, adapter=adapter))


async def run_chat(
    backend: Backend,
    messages: Sequence[Message],
    make_params: MakeParams,
    max_new_tokens: int | None,
    *,
    tools: Sequence[Any] | None = None,
    adapter: str | None = None,
    variables: Mapping[str, Any] | None = None,
) -> Run:
    """Answer a conversation.

    Raises:
        ApiError: the conversation is too long.
        TemplateError: there is no template, or it refuses the messages.
        ConfigError, EngineError, RemoteError: as in `Backend.generate`.
    """
    if backend.tokenizer is None or backend.template is None:
        params = make_params(max_new_tokens or UNKNOWN_ROOM)
        updates = backend.chat(messages, params, tools=tools, adapter=adapter, variables=variables)
        return Run(None, params, updates)
    ids = await backend.encode_chat(messages, tools=tools, variables=variables)
    if not ids:
        raise ConfigError("the chat template made an empty prompt of these messages")
    params = make_params(room_for(backend, ids, max_new_tokens, "messages"))
    return Run(ids, params, backend.generate(ids, params, adapter=adapter))


def room_for(backend: Backend, ids: Sequence[int], max_new_tokens: int | None, param: str) -> int:
    """How many new tokens there may be.

    Raises:
        ApiError: 400 context_length_exceeded, there is room for none.
    """
    most = backend.info.max_positions
    if most is None:
        return max_new_tokens or UNKNOWN_ROOM
    check_length(backend, ids, most - 1, param)
    room = most - len(ids)
    return room if max_new_tokens is None else min(room, max_new_tokens)


def check_length(backend: Backend, ids: Sequence[int], most: int | None, param: str) -> None:
    """Check that a prompt, the field `param` of a request, is not too long.

    Raises:
        ApiError: 400 context_length_exceeded.
    """
    if most is not None and len(ids) > most:
        context = backend.info.max_positions
        room = "" if most == context else ", and the answer needs room, too"
        # Clients know this error by its first words.
        raise ApiError(
            f"this model's maximum context length is {context} tokens, but the prompt has "
            f"{len(ids)}{room}; shorten the prompt",
            param=param,
            code="context_length_exceeded",
        )


@dataclass
class Usage:
    """Tokens of a request.

    Attributes:
        prompt_tokens: of all prompts.
        completion_tokens: of all answers, without end tokens.
        cached_tokens: of the prompts, that did not have to be computed.
        reasoning_tokens: of the answers.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def take(self, update: Update) -> None:
        """Count what is new; another server counts for itself, at the end."""
        self.completion_tokens += len(update.token_ids)
        if update.remote is not None:
            self.completion_tokens += update.remote.new_tokens or 0
            self.prompt_tokens += update.remote.prompt_tokens or 0

    def body(self) -> dict[str, Any]:
        """As completions and chats report it."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        }
