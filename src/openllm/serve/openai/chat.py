# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`/v1/chat/completions`: answers to conversations."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from openllm.serve.openai.batching import batches
from openllm.serve.openai.body import read
from openllm.serve.openai.chat_schemas import ChatRequest
from openllm.serve.openai.sse import DONE, event_stream, unless_gone
from openllm.serve.openai.talk import begin
from openllm.serve.service import Choice, Service, service_of

router = APIRouter()


@router.post("/v1/chat/completions")
async def create(request: Request) -> Response:
    """Answer a conversation."""
    body = await read(request, ChatRequest)
    service = service_of(request)
    choice = service.choose(body.model)
    if body.stream:
        return await event_stream(request, stream(service, choice, body))
    return JSONResponse(await unless_gone(request, answer(service, choice, body)))


async def answer(service: Service, choice: Choice, body: ChatRequest) -> dict[str, Any]:
    """The response to a request that is not streamed."""
    head = _head("chat.completion", choice)
    async with service.lease(choice) as backend:
        talk = await begin(backend, choice, body)
        async with aclosing(batches([talk.run.updates])) as news:
            async for batch in news:
                for _, update in batch:
                    talk.take(update)
    return {
        **head,
        "choices": [one.body(index) for index, one in enumerate(talk.answers)],
        "usage": talk.usage.body(),
        "system_fingerprint": None,
    }


async def stream(
    service: Service, choice: Choice, body: ChatRequest
) -> AsyncGenerator[bytes, None]:
    """The response to a request that is streamed."""
    # What all chunks have in common is made once.
    head = json.dumps(_head("chat.completion.chunk", choice))[:-1].encode()
    usage = b',"usage":null}\n\n' if body.include_usage else b"}\n\n"
    begin_chunk, end_chunk = b"data: " + head + b',"choices":[', b"]" + usage
    async with service.lease(choice) as backend:
        talk = await begin(backend, choice, body)
        async with aclosing(batches([talk.run.updates])) as news:
            async for batch in news:
                chunks = [
                    begin_chunk + chunk + end_chunk
                    for chunk in talk.chunks([update for _, update in batch])
                ]
                if chunks:
                    yield b"".join(chunks)
        if body.include_usage:
            last = json.dumps(talk.usage.body()).encode()
            yield begin_chunk + b'],"usage":' + last + b"}\n\n"
    yield DONE


def _head(kind: str, choice: Choice) -> dict[str, Any]:
    made = f"chatcmpl-{uuid4().hex}"
    return {"id": made, "object": kind, "created": int(time.time()), "model": choice.label}
