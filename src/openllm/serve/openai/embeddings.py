# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`/v1/embeddings`: texts as vectors."""

import base64
import struct
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from openllm.engine.backend import Backend
from openllm.engine.request import Prompt
from openllm.serve.errors import ApiError
from openllm.serve.openai.batching import together
from openllm.serve.openai.body import Body, read
from openllm.serve.openai.generation import check_length
from openllm.serve.openai.schemas import Count, Prompts, as_list
from openllm.serve.openai.sse import unless_gone
from openllm.serve.service import Choice, Service, service_of

router = APIRouter()


class EmbeddingRequest(Body):
    """Texts to turn into vectors."""

    model: str | None = Field(None, description="may be left out where only one is served")
    input: Prompts
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64: of little-endian 32-bit floats"
    )
    dimensions: Count | None = Field(None, description="keep so many, scaled to length 1 again")
    user: str | None = Field(None, description="no effect")


class Embedding(BaseModel):
    """The vector of one text, of length 1."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """The vectors of all texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


@router.post("/v1/embeddings")
async def create(request: Request) -> Response:
    """Turn texts into vectors."""
    body = await read(request, EmbeddingRequest)
    service = service_of(request)
    choice = service.choose(body.model)
    return JSONResponse(await unless_gone(request, answer(service, choice, body)))


async def answer(service: Service, choice: Choice, body: EmbeddingRequest) -> dict[str, Any]:
    """The response to a request."""
    async with service.lease(choice) as backend:
        prompts = as_list(body.input)
        found = [await _ids(backend, prompt) for prompt in prompts]
        vectors = await together(backend.embed(ids, adapter=choice.adapter) for ids in found)
    count = sum(len(ids) for ids in found if not isinstance(ids, str))
    data = [
        {"object": "embedding", "index": index, "embedding": _show(vector, body)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": choice.label, "usage": usage}


async def _ids(backend: Backend, prompt: Prompt) -> Prompt:
    """The ids of a text, which must not be too long; the text if only a remote server knows."""
    if backend.tokenizer is None:
        return prompt
    ids = await backend.encode(prompt)
    check_length(backend, ids, backend.info.max_positions, "input")
    return ids


def _show(vector: list[float], body: EmbeddingRequest) -> list[float] | str:
    if body.dimensions is not None:
        if body.dimensions > len(vector):
            raise ApiError(
                f"this model's vectors have {len(vector)} dimensions; ask for at most so many",
                param="dimensions",
            )
        vector = vector[: body.dimensions]
        size = sum(x * x for x in vector) ** 0.5
        vector = [x / size for x in vector] if size else vector
    if body.encoding_format == "base64":
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return vector
