# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The inference engine: prompts in, continuations out, whole or streamed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from openllm.checkpoint.model_dir import load_model
from openllm.core.errors import ConfigError
from openllm.engine.request import Completion, SamplingParams
from openllm.engine.sampler import Row, SamplerState, choose
from openllm.nn.cache import KVCache
from openllm.nn.heads import logits
from openllm.nn.model import Transformer
from openllm.text.stream import StreamDecoder
from openllm.text.tokenizer import Tokenizer, load_tokenizer

Prompt = str | Sequence[int]
"""The beginning of a document as text, or all ids to continue."""


@dataclass
class _Sequence:
    """One request in progress."""

    index: int
    prompt: list[int]
    params: SamplingParams
    decoder: StreamDecoder
    limit: int
    state: SamplerState
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    sent: int = 0
    finish_reason: str | None = None

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.tokens)

    def take(self, token: int, end_ids: frozenset[int]) -> None:
        """Append a token, or finish."""
        if token in end_ids:
            self._end("stop")
            return
        self.tokens.append(token)
        self.state.add(token)
        before = len(self.text)
        self.text += self.decoder.feed(token)
        longest = max((len(stop) for stop in self.params.stop), default=0)
        found = [
            at
            for stop in self.params.stop
            if (at := self.text.find(stop, max(0, before - longest))) >= 0
        ]
        if found:
            self.text = self.text[: min(found)]
            self.finish_reason = "stop"
        elif len(self.tokens) >= self.limit:
            self._end("length")

    def _end(self, reason: str) -> None:
        self.text += self.decoder.finish()
        self.finish_reason = reason

    def news(self) -> str:
        """Text not yet returned; holds back a possible start of a stop string."""
        end = len(self.text)
        if self.finish_reason is None:
            held = [
                size
                for stop in self.params.stop
                for size in range(1, len(stop))
                if self.text.endswith(stop[:size])
            ]
            end -= max(held, default=0)
        piece = self.text[self.sent : end]
        self.sent = max(self.sent, end)
        return piece


class LLM:
    """A loaded model with its tokenizer.

    Each prompt is read in a forward pass of its own; then all unfinished requests of a batch
    are decoded together, one token per step.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, *, max_batch: int = 32) -> None:
        if model.cfg.vocab_size < tokenizer.vocab_size:
            raise ConfigError(
                f"the model's vocabulary size is {model.cfg.vocab_size}, but the tokenizer's is "
                f"{tokenizer.vocab_size}; use the tokenizer that the model was trained with"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_batch = max_batch
        banned = tokenizer.banned_ids | set(range(tokenizer.vocab_size, model.cfg.vocab_size))
        self._banned = torch.tensor(sorted(banned), dtype=torch.long)

    @classmethod
    def load(cls, folder: Path | str, *, max_batch: int = 32) -> "LLM":
        """Load a model folder.

        Raises:
            CheckpointError: it is missing or damaged.
            TokenizerError: its tokenizer is missing or damaged.
        """
        return cls(load_model(folder), load_tokenizer(folder), max_batch=max_batch)

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams]
    ) -> list[Completion]:
        """Continue each prompt; with one `params` for all, prompt i uses `seed + i`.

        Raises:
            ConfigError: a prompt is longer than the model's context, or has no tokens.
        """
        if isinstance(params, SamplingParams):
            params = [
                params.model_copy(update={"seed": params.seed + i}) for i in range(len(prompts))
            ]
        requests = [
            self._request(index, prompt, wish)
            for index, (prompt, wish) in enumerate(zip(prompts, params, strict=True))
        ]
        for start in range(0, len(requests), self.max_batch):
            for _ in self._run(requests[start : start + self.max_batch]):
                pass
        return [
            Completion(r.text, r.tokens, r.prompt, r.finish_reason or "length") for r in requests
        ]

    def stream(self, prompt: Prompt, params: SamplingParams) -> Iterator[str]:
        """Yield one continuation piece by piece; joined, it is what `generate` returns."""
        request = self._request(0, prompt, params)
        for _ in self._run([request]):
            if piece := request.news():
                yield piece

    def _request(self, index: int, prompt: Prompt, params: SamplingParams) -> _Sequence:
        if isinstance(prompt, str):
            ids = [*self.tokenizer.prefix, *self.tokenizer.encode(prompt)]
        else:
            ids = list(prompt)
        if not ids:
            raise ConfigError(
                "the prompt is empty, and this model has no token for the beginning of a document; "
                "give a prompt"
            )
        room = self.model.cfg.max_positions - len(ids)
        if room < 1:
            raise ConfigError(
                f"the prompt has {len(ids)} tokens, but prompt and new text together may have "
                f"at most {self.model.cfg.max_positions}; shorten the prompt"
            )
        limit = min(params.max_new_tokens, room)
        state = SamplerState(params, ids, vocab_size=self.model.cfg.vocab_size)
        return _Sequence(index, ids, params, StreamDecoder(self.tokenizer), limit, state)

    @torch.inference_mode()
    def _run(self, requests: list[_Sequence]) -> Iterator[None]:
        """Decode the requests until all finish; yield after each step."""
        if not requests:
            return
        capacity = max(len(r.prompt) + r.limit for r in requests)
        cache = KVCache(self.model.cfg, len(requests), capacity)
        states = []
        for row, request in enumerate(requests):
            single = KVCache(self.model.cfg, 1, len(request.prompt))
            hidden = self.model(torch.tensor([request.prompt]), cache=single)
            cache.copy_row(single, 0, row)
            states.append(hidden.x[0, -1])
        active = list(requests)
        self._choose(active, torch.stack(states))
        yield
        while True:
            going = [row for row, request in enumerate(active) if request.finish_reason is None]
            if not going:
                return
            if len(going) < len(active):
                cache.keep_rows(going)
                active = [active[row] for row in going]
            newest = torch.tensor([[request.tokens[-1]] for request in active])
            self._choose(active, self.model(newest, cache=cache).x[:, -1])
            yield

    def _choose(self, active: list[_Sequence], states: Tensor) -> None:
        rows = [Row(request.state, request.length, self._banned) for request in active]
        choices = choose(logits(states, self.model.head), rows)
        for request, choice in zip(active, choices, strict=True):
            if choice.failure is not None:
                raise choice.failure
            request.take(choice.token, self.tokenizer.end_ids)
