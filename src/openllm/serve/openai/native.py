# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A plain API beside OpenAI's: `/generate`, `/generate/stream`, `/info`, `/health`."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from openllm import __version__
from openllm.engine.backend import Backend
from openllm.engine.request import SamplingParams
from openllm.serve.openai.batching import batches, joined
from openllm.serve.openai.body import Body, read
from openllm.serve.openai.generation import Run, run_prompt
from openllm.serve.openai.schemas import Count, StopString, TokenIds
from openllm.serve.openai.sse import event_stream, unless_gone
from openllm.serve.service import Choice, Service, service_of

router = APIRouter()

Probability = Annotated[float, Field(gt=0, le=1)]


class GenerateRequest(Body):
    """A text to continue; the settings have the names of `openllm generate`."""

    prompt: str | TokenIds
    model: str | None = Field(None, description="may be left out where only one is served")
    max_new_tokens: Count = 128
    min_new_tokens: int = Field(0, ge=0)
    temperature: float = Field(1.0, ge=0, le=2)
    top_k: int = Field(0, ge=0)
    top_p: Probability = 1.0
    min_p: float = Field(0.0, ge=0, le=1)
    typical_p: Probability = 1.0
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    stop: list[StopString] = Field([], max_length=16)
    seed: int = Field(0, ge=0, lt=2**63)


class GenerateResponse(BaseModel):
    """A continuation."""

    model: str
    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    new_tokens: int
    cached_tokens: int


class ModelInfo(BaseModel):
    """A model; most is unknown before it is loaded."""

    name: str
    loaded: bool
    kind: str | None
    max_positions: int | None
    precision: str | None
    parameters: int | None
    num_bytes: int | None
    adapters: list[str]


class Info(BaseModel):
    """What is served."""

    version: str
    models: list[ModelInfo]


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"]


@router.post("/generate")
async def generate(request: Request) -> Response:
    """Continue a text."""
    body = await read(request, GenerateRequest)
    service = service_of(request)
    choice = service.choose(body.model)
    return JSONResponse(await unless_gone(request, answer(service, choice, body)))


@router.post("/generate/stream")
async def generate_stream(request: Request) -> Response:
    """Continue a text: an event for each piece, the last with all but the text."""
    body = await read(request, GenerateRequest)
    service = service_of(request)
    return await event_stream(request, stream(service, service.choose(body.model), body))


@router.get("/info", responses={200: {"model": Info}})
async def info(request: Request) -> Response:
    """What is served."""
    models = service_of(request).models
    found = [_describe(name, models.info(name)) for name in models.names()]
    return JSONResponse({"version": __version__, "models": found})


@router.get("/health", responses={200: {"model": Health}})
async def health() -> Response:
    """Whether the server answers at all."""
    return JSONResponse({"status": "ok"})


async def answer(service: Service, choice: Choice, body: GenerateRequest) -> dict[str, Any]:
    """The response to a request that is not streamed."""
    texts: list[str] = []
    facts: dict[str, Any] = {}
    async with service.lease(choice) as backend:
        run = await _begin(backend, choice, body)
        async with aclosing(pieces(run)) as news:
            async for text, known in news:
                texts.append(text)
                facts = known
    return {"model": choice.label, "text": "".join(texts), **facts}


async def stream(
    service: Service, choice: Choice, body: GenerateRequest
) -> AsyncGenerator[bytes, None]:
    """The response to a request that is streamed."""
    async with service.lease(choice) as backend:
        run = await _begin(backend, choice, body)
        async with aclosing(pieces(run)) as news:
            async for text, facts in news:
                if text:
                    yield b'data: {"text": ' + json.dumps(text).encode() + b"}\n\n"
                if facts["finish_reason"]:
                    last = {"model": choice.label, **facts}
                    yield b"data: " + json.dumps(last).encode() + b"\n\n"


async def pieces(run: Run) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    """New text, and what else there is to say by then."""
    new_tokens = cached_tokens = 0
    async with aclosing(batches([run.updates])) as news:
        async for batch in news:
            update = joined([one for _, one in batch])
            new_tokens += len(update.token_ids)
            cached_tokens = max(cached_tokens, update.cached_tokens)
            reason = update.finish_reason
            facts = {
                "finish_reason": reason if reason in (None, "length") else "stop",
                "prompt_tokens": len(run.prompt_ids or ()),
                "new_tokens": new_tokens,
                "cached_tokens": cached_tokens,
            }
            yield update.text, facts


async def _begin(backend: Backend, choice: Choice, body: GenerateRequest) -> Run:
    given = body.model_dump(exclude={"prompt", "model", "max_new_tokens", "stop"})

    def make_params(room: int) -> SamplingParams:
        return SamplingParams(max_new_tokens=room, stop=tuple(body.stop), **given)

    return await run_prompt(
        backend, body.prompt, make_params, body.max_new_tokens, adapter=choice.adapter
    )


def _describe(name: str, known: Any) -> dict[str, Any]:
    facts = ("kind", "max_positions", "precision", "parameters", "num_bytes")
    return {
        "name": name,
        "loaded": known is not None,
        **{fact: getattr(known, fact, None) for fact in facts},
        "adapters": list(known.adapters) if known is not None else [],
    }
