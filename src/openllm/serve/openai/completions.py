# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`/v1/completions`: continuations of texts."""

import codecs
import json
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from openllm.engine.backend import Backend
from openllm.engine.request import Prompt, SamplingParams, TokenLogprob, Update
from openllm.serve.errors import ApiError
from openllm.serve.openai.batching import batches, joined, together
from openllm.serve.openai.body import read
from openllm.serve.openai.completion_schemas import CompletionRequest
from openllm.serve.openai.generation import Run, Usage, check_length, run_prompt
from openllm.serve.openai.schemas import MAX_TEXTS, as_list, only
from openllm.serve.openai.spelling import Spelling, finite, spelling_of, token_of, top_logprobs
from openllm.serve.openai.sse import DONE, event_stream, unless_gone
from openllm.serve.service import Choice, Service, service_of

router = APIRouter()

DEFAULT_TOKENS = 16
"""New tokens if the request does not say, as OpenAI has it."""


@router.post("/v1/completions")
async def create(request: Request) -> Response:
    """Continue texts."""
    body = await read(request, CompletionRequest)
    service = service_of(request)
    choice = service.choose(body.model)
    if body.stream:
        return await event_stream(request, stream(service, choice, body))
    return JSONResponse(await unless_gone(request, answer(service, choice, body)))


async def answer(service: Service, choice: Choice, body: CompletionRequest) -> dict[str, Any]:
    """The response to a request that is not streamed."""
    head = _head(choice)
    async with service.lease(choice) as backend:
        job = await begin(backend, choice, body)
        async with aclosing(batches([run.updates for run in job.runs])) as news:
            async for batch in news:
                for index, update in batch:
                    job.take(index, update)
    choices = [line.body(index) for index, line in enumerate(job.lines)]
    return {**head, "choices": choices, "usage": job.usage.body(), "system_fingerprint": None}


async def stream(
    service: Service, choice: Choice, body: CompletionRequest
) -> AsyncGenerator[bytes, None]:
    """The response to a request that is streamed."""
    # What all chunks have in common is made once.
    head = json.dumps(_head(choice))[:-1].encode()
    usage = b',"usage":null}\n\n' if body.include_usage else b"}\n\n"
    begin_chunk, end_chunk = b"data: " + head + b',"choices":[', b"]" + usage
    async with service.lease(choice) as backend:
        job = await begin(backend, choice, body)
        if echoed := job.echoed():
            yield b"".join(begin_chunk + chunk + end_chunk for chunk in echoed)
        async with aclosing(batches([run.updates for run in job.runs])) as news:
            async for batch in news:
                if chunks := job.chunks(batch):
                    yield b"".join(begin_chunk + chunk + end_chunk for chunk in chunks)
        if body.include_usage:
            last = json.dumps(job.usage.body()).encode()
            yield begin_chunk + b'],"usage":' + last + b"}\n\n"
    yield DONE


def _head(choice: Choice) -> dict[str, Any]:
    made = f"cmpl-{uuid4().hex}"
    return {
        "id": made,
        "object": "text_completion",
        "created": int(time.time()),
        "model": choice.label,
    }


class Line:
    """One continuation while it is made."""

    def __init__(self, spelling: Spelling | None) -> None:
        self._spelling = spelling
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0
        self._texts: list[str] = []
        self._logprobs: dict[str, list[Any]] | None = None
        self.finish_reason: str | None = None

    def begin(
        self, text: str, ids: Sequence[int], scores: Sequence[TokenLogprob] | None, *, last: bool
    ) -> str:
        """Begin with the prompt, and end there if it is `last`; returns as `take`."""
        if last:
            self.finish_reason = "length"
        shown = None
        if scores is not None and self._spelling is not None:
            firsts = [self._spelling.bytes_of(index) for index in ids[:1]]
            shown = self._show(scores, firsts)
        return self._add(text, shown)

    def take(self, update: Update) -> str:
        """Add what is new; returns the choice of a chunk without its index."""
        shown = None
        if update.logprobs is not None:
            shown = self._show(update.logprobs)
        if update.finish_reason is not None:
            self.finish_reason = "length" if update.finish_reason == "length" else "stop"
        return self._add(update.text, shown)

    def body(self, index: int) -> dict[str, Any]:
        """The whole continuation."""
        return {
            "index": index,
            "text": "".join(self._texts),
            "logprobs": self._logprobs,
            "finish_reason": self.finish_reason,
        }

    def _add(self, text: str, shown: dict[str, list[Any]] | None) -> str:
        self._texts.append(text)
        if shown is not None:
            if self._logprobs is None:
                self._logprobs = {name: [] for name in shown}
            for name, values in shown.items():
                self._logprobs[name] += values
        return (
            f'"text":{json.dumps(text)},"logprobs":{json.dumps(shown)},'
            f'"finish_reason":{json.dumps(self.finish_reason)}}}'
        )

    def _show(
        self, logprobs: Sequence[TokenLogprob], firsts: Sequence[bytes] = ()
    ) -> dict[str, list[Any]]:
        """Log-probabilities as they are reported; the first token of all has none."""
        spelling, none = self._spelling, [None] * len(firsts)
        tokens = [*firsts, *(token_of(one, spelling) for one in logprobs)]
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            control = spelling is not None and spelling.is_control(token)
            self._offset += 0 if control else len(self._decoder.decode(token))
        return {
            "tokens": [token.decode("utf-8", "replace") for token in tokens],
            "token_logprobs": [*none, *(finite(one.logprob) for one in logprobs)],
            "top_logprobs": [*none, *(top_logprobs(one, spelling) for one in logprobs)],
            "text_offset": offsets,
        }


@dataclass
class Job:
    """A request that is being answered.

    Attributes:
        runs: one for each prompt, none if nothing is generated.
        lines: n for each prompt.
        beginnings: the choices of chunks that echo the prompts.
    """

    runs: list[Run]
    lines: list[Line]
    usage: Usage
    beginnings: list[str] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Continuations of each prompt."""
        return len(self.lines) // max(len(self.runs), 1)

    def take(self, run: int, update: Update) -> str:
        """Add what is new to its line."""
        self.usage.take(update)
        self.usage.cached_tokens += update.cached_tokens if update.index == 0 else 0
        return self.lines[run * self.n + update.index].take(update)

    def echoed(self) -> list[bytes]:
        """The choices of chunks that echo the prompts."""
        return [f'{{"index":{i},{text}'.encode() for i, text in enumerate(self.beginnings)]

    def chunks(self, batch: Sequence[tuple[int, Update]]) -> list[bytes]:
        """The choices of chunks for what is new."""
        by_line: dict[tuple[int, int], list[Update]] = {}
        for run, update in batch:
            by_line.setdefault((run, update.index), []).append(update)
        found = []
        for (run, index), updates in by_line.items():
            update = joined(updates)
            text = self.take(run, update)
            if update.text or update.finish_reason or update.logprobs:
                found.append(f'{{"index":{run * self.n + index},{text}'.encode())
        return found


async def begin(backend: Backend, choice: Choice, body: CompletionRequest) -> Job:
    """Start to continue all prompts.

    Raises:
        ApiError: the request cannot be met, or a prompt is too long.
        ConfigError, EngineError, RemoteError: as in `Backend.generate`.
    """
    prompts, n = as_list(body.prompt), body.n or 1
    if len(prompts) * max(n, body.best_of or 1) > MAX_TEXTS:
        raise ApiError(f"more than {MAX_TEXTS} continuations; ask for fewer at once", param="n")
    if body.echo and body.logprobs is not None and backend.tokenizer is None:
        raise ApiError("this model does not report log-probabilities of prompts", param="echo")
    spelling = spelling_of(backend.tokenizer) if backend.tokenizer is not None else None
    job = Job([], [Line(spelling) for _ in range(len(prompts) * n)], Usage())
    limit = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
    make_params = _maker(body)
    if limit == 0:
        make_params(0, 1)  # checks what is given
        found = [await _ids_only(backend, prompt) for prompt in prompts]
    else:
        job.runs = [
            await run_prompt(
                backend, prompt, partial(make_params, index), limit, adapter=choice.adapter
            )
            for index, prompt in enumerate(prompts)
        ]
        found = [run.prompt_ids or [] for run in job.runs]
    job.usage.prompt_tokens = sum(map(len, found))
    if body.echo or limit == 0:
        await _begin_lines(backend, choice, body, job, found)
    return job


def _maker(body: CompletionRequest) -> Callable[[int, int], SamplingParams]:
    """Makes the settings for a prompt's index and a number of new tokens."""
    structure = only(body.structures())
    # Who measures a prompt by its echo cuts off exactly the one token that must be generated.
    measured = bool(body.echo) and body.logprobs is not None and body.max_tokens == 1

    def make_params(index: int, room: int) -> SamplingParams:
        params = body.params(
            room, n=body.n or 1, structure=structure, logprobs=body.logprobs, best_of=body.best_of
        )
        # Equal prompts get different answers, as in `LLM.generate`.
        changes = {"seed": (params.seed + index) % 2**63}
        return params.model_copy(update=changes | ({"min_new_tokens": 1} if measured else {}))

    return make_params


async def _begin_lines(
    backend: Backend,
    choice: Choice,
    body: CompletionRequest,
    job: Job,
    found: Sequence[Sequence[int]],
) -> None:
    """Begin each line: with its prompt if that is echoed, or its end if nothing is generated."""
    prompts = as_list(body.prompt)
    texts, scores = ["" for _ in prompts], [None] * len(prompts)
    if body.echo:
        texts = [_text(backend, prompt) for prompt in prompts]
    if body.echo and body.logprobs is not None:
        scores = await together(_score(backend, choice, ids, body.logprobs) for ids in found)
    for index, line in enumerate(job.lines):
        at = index * len(prompts) // len(job.lines)
        begun = line.begin(texts[at], found[at], scores[at], last=body.max_tokens == 0)
        job.beginnings.append(begun)


async def _ids_only(backend: Backend, prompt: Prompt) -> list[int]:
    """The ids of a prompt that is not continued."""
    if backend.tokenizer is None:
        return []
    ids = await backend.encode(prompt)
    check_length(backend, ids, backend.info.max_positions, "prompt")
    return ids


async def _score(
    backend: Backend, choice: Choice, ids: Sequence[int], top: int
) -> list[TokenLogprob]:
    """Log-probabilities of a prompt's tokens after the first."""
    if len(ids) < 2:
        return []
    return await backend.score(ids, top=top, adapter=choice.adapter)


def _text(backend: Backend, prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    if backend.tokenizer is None:
        raise ApiError("this model can echo text only, not token ids", param="echo")
    return backend.tokenizer.decode(prompt)
