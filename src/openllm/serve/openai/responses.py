# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`/v1/responses`: OpenAI's newer form of a conversation, without its storage."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from openllm.serve.errors import as_api_error
from openllm.serve.openai.batching import batches, joined
from openllm.serve.openai.body import read
from openllm.serve.openai.generation import Usage
from openllm.serve.openai.responses_chat import as_chat
from openllm.serve.openai.responses_items import Items
from openllm.serve.openai.responses_schemas import ResponsesRequest
from openllm.serve.openai.sse import event_stream, unless_gone
from openllm.serve.openai.talk import begin
from openllm.serve.service import Choice, Service, service_of

router = APIRouter()


@router.post("/v1/responses")
async def create(request: Request) -> Response:
    """Answer a conversation."""
    body = await read(request, ResponsesRequest)
    service = service_of(request)
    choice = service.choose(body.model)
    if body.stream:
        return await event_stream(request, stream(service, choice, body))
    return JSONResponse(await unless_gone(request, answer(service, choice, body)))


async def answer(service: Service, choice: Choice, body: ResponsesRequest) -> dict[str, Any]:
    """The response to a request that is not streamed."""
    head, items = _head(choice, body), Items()
    async with service.lease(choice) as backend:
        talk = await begin(backend, choice, as_chat(body))
        async with aclosing(batches([talk.run.updates])) as news:
            async for batch in news:
                for _, update in batch:
                    items.take(talk.take(update), talk.answers[0].show(update.logprobs))
    reason = talk.answers[0].finish_reason
    items.finish(reason)
    return {**head, **_end(items, reason, talk.usage)}


async def stream(
    service: Service, choice: Choice, body: ResponsesRequest
) -> AsyncGenerator[bytes, None]:
    """The response to a request that is streamed: events that build it up."""
    writer = _Writer()
    try:
        async with aclosing(_events(service, choice, body, writer)) as events:
            async for event in events:
                yield event
    except Exception as error:  # of any kind: clients of this API expect an event of its own form
        if not writer.begun:
            raise
        facts = as_api_error(error).body()["error"]
        # flat as in the API's reference; the official client raises what stands in `error`
        yield writer.event({**facts, "type": "error", "error": facts})


async def _events(
    service: Service, choice: Choice, body: ResponsesRequest, writer: "_Writer"
) -> AsyncGenerator[bytes, None]:
    head, items = _head(choice, body), Items()
    async with service.lease(choice) as backend:
        talk = await begin(backend, choice, as_chat(body))
        async with aclosing(batches([talk.run.updates])) as news:
            async for batch in news:
                events = []
                if not writer.begun:
                    events += [
                        writer.event({"type": f"response.{kind}", "response": head})
                        for kind in ("created", "in_progress")
                    ]
                update = joined([one for _, one in batch])
                shown = talk.answers[0].show(update.logprobs)
                events += map(writer.event, items.take(talk.take(update), shown))
                if events:
                    yield b"".join(events)
        reason = talk.answers[0].finish_reason
        events = [writer.event(event) for event in items.finish(reason)]
        last = {**head, **_end(items, reason, talk.usage)}
        events.append(writer.event({"type": f"response.{last['status']}", "response": last}))
        yield b"".join(events)


class _Writer:
    """Numbers events and writes them."""

    def __init__(self) -> None:
        self._number = 0

    @property
    def begun(self) -> bool:
        return self._number > 0

    def event(self, event: dict[str, Any]) -> bytes:
        text = json.dumps({**event, "sequence_number": self._number})
        self._number += 1
        return f"event: {event['type']}\ndata: {text}\n\n".encode()


def _head(choice: Choice, body: ResponsesRequest) -> dict[str, Any]:
    """A response before there is an answer."""
    given = body.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "id": f"resp_{uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "model": choice.label,
        "output": [],
        "usage": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "store": False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": given.get("text") or {"format": {"type": "text"}},
        "tool_choice": given.get("tool_choice") or "auto",
        "tools": given.get("tools") or [],
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "metadata": body.metadata or {},
    }


def _end(items: Items, reason: str | None, usage: Usage) -> dict[str, Any]:
    """What a response has at its end."""
    cut = reason == "length"
    return {
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": items.output,
        "usage": {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
    }
