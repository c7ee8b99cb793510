# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""An engine without a model: it repeats the prompt, token by token, to test clients and servers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from openllm.core.errors import ConfigError
from openllm.engine.backend import BackendInfo, EngineStats
from openllm.engine.backends.local import LocalBackend
from openllm.engine.request import Request, SamplingParams, TokenLogprob, Update
from openllm.text.byte_tokenizer import ByteTokenizer
from openllm.text.chat import ChatTemplate
from openllm.text.stream import StreamDecoder
from openllm.text.tokenizer import Tokenizer

TEMPLATE = (
    "{# A call of one of the tools that comes back: <tool_call>{...}</tool_call> #}"
    "{% for message in messages %}{{ message['content'] or '' }}\n{% endfor %}"
)

WIDTH = 8
"""Dimensions of the vectors."""


@dataclass
class _Echo:
    """A request, and how many of its tokens have come back."""

    request: Request
    decoder: StreamDecoder
    done: int = 0


class EchoEngine:
    """Continues each prompt with the prompt itself, one token per step and request."""

    def __init__(self, tokenizer: Tokenizer, *, max_positions: int = 4096) -> None:
        self.max_positions = max_positions
        self._tokenizer = tokenizer
        self._echoes: dict[str, _Echo] = {}
        self._stats = EngineStats()

    def add(self, request: Request) -> None:
        """See `Engine.add`."""
        if request.adapter is not None:
            raise ConfigError(f"there is no adapter '{request.adapter}'; echo has none")
        if not 0 < len(request.prompt) < self.max_positions:
            raise ConfigError(
                f"the prompt has {len(request.prompt)} tokens; give 1 to {self.max_positions - 1}"
            )
        self._echoes[request.id] = _Echo(request, StreamDecoder(self._tokenizer))
        total = self._stats.prompt_tokens + len(request.prompt)
        self._stats = replace(self._stats, prompt_tokens=total)

    def prepare(self, params: SamplingParams) -> None:
        """See `Engine.prepare`."""

    def abort(self, request_id: str) -> None:
        """See `Engine.abort`."""
        self._echoes.pop(request_id, None)

    def has_work(self) -> bool:
        """See `Engine.has_work`."""
        return bool(self._echoes)

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        return replace(self._stats, running=len(self._echoes))

    def reset(self) -> None:
        """See `Engine.reset`."""
        self._echoes.clear()

    def step(self) -> list[Update]:
        """See `Engine.step`."""
        updates = [u for echo in list(self._echoes.values()) for u in self._advance(echo)]
        self._stats = replace(self._stats, steps=self._stats.steps + 1)
        return updates

    def _advance(self, echo: _Echo) -> list[Update]:
        request, done = echo.request, echo.done
        if request.kind == "score":
            del self._echoes[request.id]
            certain = [_certain(index, request.top) for index in request.prompt[1:]]
            return [Update(request.id, logprobs=certain, finish_reason="stop")]
        if request.kind == "embed":
            del self._echoes[request.id]
            return [Update(request.id, vector=_vector(request.prompt), finish_reason="stop")]
        limit = min(request.params.max_new_tokens, self.max_positions - len(request.prompt))
        ids = list(request.prompt[done : done + 1]) if done < limit else []
        if not ids:
            del self._echoes[request.id]
            reason = "stop" if done == len(request.prompt) else "length"
            text = echo.decoder.finish()
            return self._copies(request, Update(request.id, text=text, finish_reason=reason))
        echo.done += 1
        self._stats = replace(self._stats, new_tokens=self._stats.new_tokens + 1)
        text = echo.decoder.feed(*ids)
        top = request.params.logprobs
        certain = None if top is None else [_certain(ids[0], top)]
        return self._copies(request, Update(request.id, text=text, token_ids=ids, logprobs=certain))

    def _copies(self, request: Request, update: Update) -> list[Update]:
        return [replace(update, index=index) for index in range(request.params.n)]


def _certain(index: int, top: int) -> TokenLogprob:
    """A token that no other could stand in the place of."""
    return TokenLogprob(index, 0.0, {index: 0.0} if top else {})


def _vector(ids: Sequence[int]) -> list[float]:
    """How often the remainders of the ids occur, of length 1."""
    counts = [sum(index % WIDTH == part for index in ids) for part in range(WIDTH)]
    length = math.hypot(*counts)
    return [count / length for count in counts]


def echo_backend(name: str = "echo", *, max_positions: int = 4096) -> LocalBackend:
    """A backend that answers with what it was asked; every byte is a token."""
    tokenizer = ByteTokenizer()
    info = BackendInfo(name, "echo", max_positions)
    engine = EchoEngine(tokenizer, max_positions=max_positions)
    return LocalBackend(engine, tokenizer, ChatTemplate(TEMPLATE), info)
