# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A backend that asks another server: vLLM, llama.cpp, OpenAI, or any with OpenAI's API."""

import asyncio
import itertools
import json
import math
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from openllm.core.errors import ConfigError, RemoteError
from openllm.engine.backend import BackendInfo, EngineStats
from openllm.engine.backends.local import encode_prompt
from openllm.engine.request import Prompt, SamplingParams, TokenLogprob, Update
from openllm.integrations.openai_http import OpenAIClient
from openllm.integrations.openai_wire import (
    StreamReader,
    completion_logprobs,
    not_understood,
    read_usage,
    sampling_body,
    spelled,
)
from openllm.text.chat import ChatTemplate, Message
from openllm.text.tokenizer import Tokenizer

KEY_VARIABLE = "OPENAI_API_KEY"


class RemoteBackend:
    """Forwards requests to a model on another server, and streams its answers.

    `Update.token_ids` stay empty, since servers tell text only. Params that OpenAI's API lacks are
    sent, by vLLM's names, where they are not the defaults; a server may ignore them. An adapter is
    asked for as the model of that name.
    """

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str | None = None,
        *,
        name: str | None = None,
        max_positions: int | None = None,
        tokenizer: Tokenizer | None = None,
        template: ChatTemplate | None = None,
        timeout: float = 600.0,
        attempts: int = 4,
        pause: float = 0.5,
    ) -> None:
        """Prepare; nothing is sent yet. `connect` asks the server for what is not given here.

        Args:
            url: of the API, such as `http://localhost:8000/v1`.
            model: as the server calls it.
            api_key: of the server.
            name: as our requests call it; none: as the server does.
            max_positions: most tokens of prompt and new text together.
            tokenizer: the model's, if it is here: to count tokens without asking the server.
            template: the model's, if it is here.
            timeout: seconds without a byte of an answer before it counts as failed.
            attempts: tries to get an answer to begin.
            pause: seconds before the second try.

        Raises:
            ConfigError: that is not an address, or the key is not one.
            MissingExtra: httpx is not installed.
        """
        self.info = BackendInfo(name or model, "remote", max_positions)
        self.tokenizer = tokenizer
        self.template = template
        self._model = model
        self._client = OpenAIClient(url, api_key, timeout=timeout, attempts=attempts, pause=pause)
        self._ids = map("remote-{}".format, itertools.count())

    async def generate(
        self, prompt: Prompt, params: SamplingParams, *, adapter: str | None = None
    ) -> AsyncIterator[Update]:
        """See `Backend.generate`."""
        body = {"prompt": _plain(prompt)} | sampling_body(params, chat=False)
        async for update in self._stream("completions", body, params.n, adapter):
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
        body = _conversation(messages, tools, variables) | sampling_body(params, chat=True)
        async for update in self._stream("chat/completions", body, params.n, adapter):
            yield update

    async def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """See `Backend.encode_chat`; asks the server, in vLLM's way."""
        return await self._tokenize(_conversation(messages, tools, variables))

    async def encode(self, prompt: Prompt) -> list[int]:
        """See `Backend.encode`; asks the server, in vLLM's way, if the tokenizer is not here."""
        if not isinstance(prompt, str):
            return list(prompt)
        if self.tokenizer is not None:
            return await asyncio.to_thread(encode_prompt, self.tokenizer, prompt)
        return await self._tokenize({"prompt": prompt})

    async def score(
        self, prompt: Prompt, *, top: int = 0, adapter: str | None = None
    ) -> list[TokenLogprob]:
        """See `Backend.score`; by a completion that repeats the prompt."""
        # some servers refuse to write no token at all
        wish = {"max_tokens": 1, "echo": True, "logprobs": top, "temperature": 0.0}
        body = {"model": adapter or self._model, "prompt": _plain(prompt)} | wish
        answer = await self._client.post("completions", body)
        try:
            return _prompt_logprobs(answer, prompt)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise not_understood(self._client.url, error) from None

    async def embed(self, prompt: Prompt, *, adapter: str | None = None) -> list[float]:
        """See `Backend.embed`."""
        body = {"model": adapter or self._model, "input": _plain(prompt)}
        answer = await self._client.post("embeddings", body)
        try:
            vector = [float(x) for x in answer["data"][0]["embedding"]]
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise not_understood(self._client.url, error) from None
        length = math.hypot(*vector)
        return [x / length for x in vector] if length else vector

    def stats(self) -> EngineStats:
        """See `Backend.stats`: zeros."""
        return EngineStats()

    def healthy(self) -> bool:
        """Whether the server answered the last request."""
        return self._client.reachable

    async def close(self) -> None:
        """See `Backend.close`: hangs up, which cancels what is running."""
        await self._client.close()

    async def _stream(
        self, path: str, body: dict[str, Any], count: int, adapter: str | None
    ) -> AsyncIterator[Update]:
        body |= {
            "model": adapter or self._model,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        reader = StreamReader(next(self._ids), count, self._client.url)
        events = self._client.events(path, body)
        try:
            async for chunk in events:
                for update in reader.read(chunk):
                    yield update
        finally:
            await events.aclose()
        for update in reader.finish():
            yield update

    async def _tokenize(self, body: dict[str, Any]) -> list[int]:
        # beside the API, not in it
        answer = await self._client.post("../tokenize", {"model": self._model} | body)
        try:
            return [int(index) for index in answer["tokens"]]
        except (KeyError, TypeError, ValueError) as error:
            raise not_understood(self._client.url, error) from None


def _plain(prompt: Prompt) -> str | list[int]:
    if not prompt:
        raise ConfigError("the prompt is empty; give one")
    return prompt if isinstance(prompt, str) else list(prompt)


def _conversation(
    messages: Sequence[Message], tools: Sequence[Any] | None, variables: Mapping[str, Any] | None
) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": [_message(message) for message in messages]}
    if tools:
        body["tools"] = list(tools)
    given = dict(variables or {})
    if "reasoning_effort" in given:  # has a field of its own
        body["reasoning_effort"] = given.pop("reasoning_effort")
    if given:
        body["chat_template_kwargs"] = given
    return body


def _message(message: Message) -> dict[str, Any]:
    """A message as the API wants it; for templates, arguments of calls may be values."""
    if not message.get("tool_calls"):
        return dict(message)
    calls = [
        {**call, "function": {**call["function"], "arguments": _as_json(call["function"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _as_json(function: Mapping[str, Any]) -> str:
    arguments = function["arguments"]
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _prompt_logprobs(answer: Any, prompt: Prompt) -> list[TokenLogprob]:
    """Those of the prompt's tokens after the first, without the new token's."""
    logprobs = answer["choices"][0]["logprobs"]
    if isinstance(prompt, str):
        counted = read_usage(answer.get("usage") or {}).prompt_tokens
        inside = [offset for offset in logprobs["text_offset"] if offset < len(prompt)]
        length = len(inside) if counted is None else counted
    else:
        length = len(prompt)
    cut = {name: logprobs[name][:length] for name in ("tokens", "token_logprobs")}
    tops = logprobs.get("top_logprobs")
    found = completion_logprobs(cut | {"top_logprobs": tops and tops[:length]})
    if len(found) != length - 1:
        raise ValueError(f"{len(found)} log-probabilities for a prompt of {length} tokens")
    if isinstance(prompt, str):
        return found
    return [
        spelled(
            ((one.spellings or {})[one.token_id], one.logprob),
            [((one.spellings or {})[index], value) for index, value in one.top.items()],
            token_id,
        )
        for one, token_id in zip(found, prompt[1:], strict=True)
    ]


def read_key(file: Path | None = None) -> str | None:
    """The key for another server: from a file, else from the environment variable.

    Raises:
        ConfigError: the file cannot be read.
    """
    if file is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"the key file {file} cannot be read as text; correct it") from None


def connect(
    url: str, model: str | None = None, api_key: str | None = None, *, name: str | None = None
) -> RemoteBackend:
    """Ask a server which models it has, and take one. Not to be called in an event loop.

    Args:
        url: of the API.
        model: as the server calls it; none if it has only one.
        api_key: of the server.
        name: as our requests call it.

    Raises:
        ConfigError: the server has several models and none is named, or that is not an address.
        RemoteError: it cannot be reached, refuses, or does not have the model.
    """

    async def ask() -> Any:
        client = OpenAIClient(url, api_key, timeout=30.0)
        try:
            return await client.get("models")
        finally:
            await client.close()

    answer = asyncio.run(ask())
    try:
        cards = {card["id"]: card for card in answer["data"]}
    except (KeyError, TypeError) as error:
        raise not_understood(url, error) from None
    names = ", ".join(sorted(cards)[:20]) or "none"
    if model is None and len(cards) != 1:
        raise ConfigError(f"{url} has several models; name one as {url}#MODEL: {names}")
    chosen = model or next(iter(cards))
    if chosen not in cards:
        raise RemoteError(f"{url} has no model '{chosen}'; it has: {names}", status=404)
    longest = cards[chosen].get("max_model_len")
    return RemoteBackend(
        url,
        chosen,
        api_key,
        name=name,
        max_positions=longest if isinstance(longest, int) else None,
    )
