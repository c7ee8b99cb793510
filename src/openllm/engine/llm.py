# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Generate, chat, score and embed with a model, from Python.

`LLM` is the simple, synchronous interface. Its `backend()` is the asynchronous one, that a server
uses; both share one engine.
"""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from openllm.checkpoint.adapters import read_adapter
from openllm.checkpoint.model_dir import read_model_config
from openllm.core.errors import ConfigError, TemplateError
from openllm.engine.assemble import assemble, assemble_folder
from openllm.engine.backend import BackendInfo, EngineStats
from openllm.engine.backends.local import LocalBackend, encode_prompt
from openllm.engine.config import EngineConfig
from openllm.engine.core import ModelEngine
from openllm.engine.request import (
    Completion,
    Prompt,
    Request,
    SamplingParams,
    TokenLogprob,
    Update,
)
from openllm.engine.turns import Turns
from openllm.nn.model import Transformer
from openllm.text.chat import ChatTemplate, Message, encode_chat, load_chat_template
from openllm.text.load import load_tokenizer
from openllm.text.tokenizer import Tokenizer

Params = SamplingParams | Sequence[SamplingParams]


class LLM:
    """A language model that writes. For one thread; `backend()` is for many.

    Attributes:
        tokenizer: of the model.
        template: its chat template; none if it is not made for chat.
        info: name, precision, size.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        cfg: EngineConfig | None = None,
        *,
        template: ChatTemplate | None = None,
        name: str = "model",
    ) -> None:
        """Run a model that is in memory; its weights are copied only if they must be packed.

        Raises:
            ConfigError: the tokenizer is not the model's, or the settings do not fit it.
        """
        engine, info = assemble(model, tokenizer, cfg or EngineConfig(), name=name)
        self._set_up(engine, tokenizer, template, info, None)

    @classmethod
    def load(
        cls, folder: Path | str, cfg: EngineConfig | None = None, *, name: str | None = None
    ) -> "LLM":
        """Load a model folder.

        Raises:
            CheckpointError: it is missing or damaged.
            TokenizerError: its tokenizer is missing or damaged.
            ConfigError: the settings do not fit the model.
        """
        folder = Path(folder)
        read_model_config(
            folder
        )  # what is no model folder is told so, not that it lacks a tokenizer
        tokenizer = load_tokenizer(folder)
        engine, info = assemble_folder(
            folder, tokenizer, cfg or EngineConfig(), name=name or folder.name
        )
        try:
            template = load_chat_template(folder)
        except TemplateError:
            template = None
        made = cls.__new__(cls)
        made._set_up(engine, tokenizer, template, info, folder)
        return made

    def _set_up(
        self,
        engine: ModelEngine,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        info: BackendInfo,
        base: Path | None,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.info = info
        self._engine = engine
        self._base = base
        self._backend: LocalBackend | None = None
        self._ids = map("call-{}".format, itertools.count())
        self._turns = Turns(engine)

    def generate(
        self, prompts: Sequence[Prompt], params: Params, *, adapter: str | None = None
    ) -> list[Completion]:
        """Continue each prompt; `params.n` completions of each, one after another.

        With one `params` for all, prompt i uses `seed + i`.

        Raises:
            ConfigError: a prompt is longer than the model's context, or has no tokens; or there are
                not as many `params` as prompts.
            EngineError: no token could be chosen, or the model's numbers are not finite.
        """
        ids = self._encode(prompts)
        requests = [
            Request(next(self._ids), prompt, wish, adapter=adapter)
            for prompt, wish in zip(ids, _for_each(params, len(ids)), strict=True)
        ]
        parts: dict[tuple[str, int], list[Update]] = defaultdict(list)
        for update in self._run(requests):
            parts[update.id, update.index].append(update)
        return [
            completion(request, parts[request.id, index])
            for request in requests
            for index in range(request.params.n)
        ]

    def chat(
        self,
        conversations: Sequence[Sequence[Message]],
        params: Params,
        *,
        tools: Sequence[Any] | None = None,
        adapter: str | None = None,
        **variables: Any,
    ) -> list[Completion]:
        """Answer conversations; `variables` are for the template.

        Raises:
            TemplateError: the model has no chat template, or it refuses the messages.
            ConfigError, EngineError: as in `generate`.
        """
        prompts = [self.encode_chat(turns, tools=tools, **variables) for turns in conversations]
        return self.generate(prompts, params, adapter=adapter)

    def encode_chat(self, messages: Sequence[Message], **variables: Any) -> list[int]:
        """Ids of a conversation up to the beginning of the answer.

        Raises:
            TemplateError: the model has no chat template, or it refuses the messages.
        """
        if self.template is None:
            raise TemplateError(
                f"the model '{self.info.name}' has no chat template, so it is not made for chat; "
                "use generate()"
            )
        return encode_chat(
            self.tokenizer, self.template, messages, add_generation_prompt=True, **variables
        )

    def stream(
        self, prompt: Prompt, params: SamplingParams, *, adapter: str | None = None
    ) -> Iterator[str]:
        """Yield one continuation piece by piece; joined, it is what `generate` returns."""
        if params.samples > 1:
            raise ConfigError("a stream is one continuation; use n=1 and no best_of")
        ids = encode_prompt(self.tokenizer, prompt)
        request = Request(next(self._ids), ids, params, adapter=adapter)
        backend = self._backend
        for update in self._run([request]) if backend is None else _relay(backend, request):
            if update.text:
                yield update.text

    def score(
        self, prompts: Sequence[Prompt], *, top: int = 0, adapter: str | None = None
    ) -> list[list[TokenLogprob]]:
        """Log-probability of each token of each prompt after its first, and of `top` others."""
        found = self._read(prompts, "score", adapter, top)
        return [list(update.logprobs or ()) for update in found]

    def embed(self, prompts: Sequence[Prompt], *, adapter: str | None = None) -> list[list[float]]:
        """A vector of length 1 for each prompt: the mean of its last hidden states, normalised."""
        return [list(update.vector or ()) for update in self._read(prompts, "embed", adapter, 0)]

    def update_weights(self, weights: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> None:
        """Replace weights, under our names; packed copies and cached prefixes follow.

        Requests that are running go on with the new weights.

        Raises:
            CheckpointError: an unknown name, or another shape.
        """
        pairs = weights.items() if isinstance(weights, Mapping) else weights
        self._between_steps(lambda: self._engine.update_weights(pairs))

    def load_adapter(self, name: str, folder: Path | str) -> None:
        """Load a LoRA adapter in PEFT's format; requests then choose it by its name.

        Raises:
            CheckpointError: it is missing or damaged.
            ConfigError: it does not fit the model.
        """
        adapter = read_adapter(Path(folder), self._base or self._engine.bank.cfg)
        self._between_steps(lambda: self._engine.load_adapter(name, adapter))
        self._note_adapters()

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            ConfigError: there is none of this name.
        """
        self._between_steps(lambda: self._engine.unload_adapter(name))
        self._note_adapters()

    def _note_adapters(self) -> None:
        self.info = replace(self.info, adapters=tuple(self._engine.bank.names))
        if self._backend is not None:
            self._backend.info = self.info

    def stats(self) -> EngineStats:
        """Counters of the engine."""
        return self._engine.stats()

    def backend(self) -> LocalBackend:
        """The asynchronous interface. From now on, the engine runs in a thread of its own.

        Raises:
            ConfigError: a `stream` is being read, which runs the engine in this thread.
        """
        if self._backend is None:
            if self._turns.are_open():
                raise ConfigError("a stream is open; read it to its end, or close it, before this")
            self._backend = LocalBackend(self._engine, self.tokenizer, self.template, self.info)
            self._backend.adapter_host = self
        return self._backend

    def _read(
        self, prompts: Sequence[Prompt], kind: Any, adapter: str | None, top: int
    ) -> list[Update]:
        requests = [
            Request(next(self._ids), ids, kind=kind, adapter=adapter, top=top)
            for ids in self._encode(prompts)
        ]
        found = {update.id: update for update in self._run(requests)}
        return [found[request.id] for request in requests]

    def _encode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        if isinstance(prompts, str):
            raise ConfigError("a list of prompts is wanted; write [prompt] for a single one")
        return [encode_prompt(self.tokenizer, prompt) for prompt in prompts]

    def _run(self, requests: Sequence[Request]) -> Iterator[Update]:
        """All updates of some requests, by our own steps or by the engine's thread."""
        if self._backend is None:
            return self._turns.run(requests)
        return iter(asyncio.run(_collect(self._backend, requests)))

    def _between_steps(self, change: Any) -> None:
        if self._backend is not None:
            asyncio.run(self._backend.call(change))
        else:
            change()


def completion(request: Request, updates: Sequence[Update]) -> Completion:
    """Join the updates of one continuation."""
    wanted = request.params.logprobs is not None
    return Completion(
        "".join(update.text for update in updates),
        [token for update in updates for token in update.token_ids],
        list(request.prompt),
        updates[-1].finish_reason or "length",
        [one for update in updates for one in update.logprobs or ()] if wanted else None,
        updates[-1].cached_tokens,
    )


def _for_each(params: Params, count: int) -> list[SamplingParams]:
    if not isinstance(params, SamplingParams):
        if len(params) != count:
            raise ConfigError(
                f"there are {len(params)} params for {count} prompts; give one for each, or a "
                "single one for all"
            )
        return list(params)
    seeds = [(params.seed + i) % 2**63 for i in range(count)]
    return [params.model_copy(update={"seed": seed}) for seed in seeds]


def _relay(backend: LocalBackend, request: Request) -> Iterator[Update]:
    """The updates of one request, each as it comes."""
    updates = backend.run(request)

    async def following() -> Update | None:
        return await anext(updates, None)

    with asyncio.Runner() as runner:
        while (update := runner.run(following())) is not None:
            yield update


async def _collect(backend: LocalBackend, requests: Sequence[Request]) -> list[Update]:
    async def all_of(stream: AsyncIterator[Update]) -> list[Update]:
        return [update async for update in stream]

    parts = await asyncio.gather(*(all_of(backend.run(request)) for request in requests))
    return [update for part in parts for update in part]
