# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Requests from a file, in OpenAI's batch format, answered as the endpoints would answer them."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from openllm.core.errors import DataError
from openllm.engine.backend import Backend
from openllm.serve.errors import ApiError, as_api_error
from openllm.serve.openai import chat, completions, embeddings, responses
from openllm.serve.openai.body import Body, parse_json
from openllm.serve.openai.chat_schemas import ChatRequest
from openllm.serve.openai.completion_schemas import CompletionRequest
from openllm.serve.openai.embeddings import EmbeddingRequest
from openllm.serve.openai.generation import UNKNOWN_ROOM, room_for
from openllm.serve.openai.responses_chat import as_chat
from openllm.serve.openai.responses_schemas import ResponsesRequest
from openllm.serve.openai.schemas import as_list
from openllm.serve.openai.talk import template_message
from openllm.serve.service import Choice, Service

Answer = Callable[[Service, Choice, Any], Awaitable[dict[str, Any]]]

ENDPOINTS: dict[str, tuple[type[Body], Answer]] = {
    "/v1/chat/completions": (ChatRequest, chat.answer),
    "/v1/completions": (CompletionRequest, completions.answer),
    "/v1/embeddings": (EmbeddingRequest, embeddings.answer),
    "/v1/responses": (ResponsesRequest, responses.answer),
}
"""URL of a request -> what its body must be, and what answers it."""


class BatchLine(Body):
    """A line of the input."""

    custom_id: str = Field(min_length=1, max_length=512)
    method: Literal["POST"]
    url: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
    body: dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A request of the input.

    Attributes:
        index: its place among the requests, from 0.
        custom_id: unique among them.
        url: of the endpoint.
        values: its body, not yet checked.
        request_id: a digest of its line, by which a later run knows it again.
    """

    index: int
    custom_id: str
    url: str
    values: dict[str, Any]
    request_id: str

    def result(self, status: int, body: dict[str, Any]) -> dict[str, Any]:
        """Its line of the output."""
        response = {"status_code": status, "request_id": self.request_id, "body": body}
        made = f"batch_{self.request_id.removeprefix('req_')}"
        return {"id": made, "custom_id": self.custom_id, "response": response, "error": None}


def read_task(raw: bytes, index: int) -> Task:
    """Read a line of the input.

    Raises:
        DataError: it is not a request at all, so that there is no id to answer under.
    """
    try:
        line = BatchLine.parse(parse_json(raw))
    except ApiError as error:
        raise DataError(error.message.replace("the body", "the line", 1)) from None
    digest = hashlib.sha256(raw.strip()).hexdigest()[:32]
    return Task(index, line.custom_id, line.url, line.body, f"req_{digest}")


def check_task(task: Task, seed: int | None = None) -> Body:
    """The checked body of a request.

    Args:
        task: the request.
        seed: for requests without one, plus their index; none: a random one.

    Raises:
        ApiError: it is not valid.
    """
    schema, _ = ENDPOINTS[task.url]
    values = {**task.values, "model": None}  # whoever runs the batch has chosen the model
    if values.get("stream"):
        raise ApiError("answers in a file are not streamed; leave 'stream' out", param="stream")
    if seed is not None and "seed" in schema.model_fields and values.get("seed") is None:
        values["seed"] = (seed + task.index) % 2**63
    return schema.parse(values)


async def answer_task(service: Service, task: Task, seed: int | None = None) -> dict[str, Any]:
    """The line of the output for a request; what is wrong with it is in that line."""
    _, answer = ENDPOINTS[task.url]
    try:
        body = check_task(task, seed)
        return task.result(200, await answer(service, service.choose(None), body))
    except Exception as error:
        refusal = as_api_error(error)
        return task.result(refusal.status, refusal.body())


async def count_tokens(backend: Backend, task: Task) -> tuple[int, int]:
    """Tokens of a request's prompts, and how many new ones it may get at most.

    Raises:
        ApiError: it is not valid, or too long.
        TemplateError: the model's template refuses the messages, or there is none.
        ConfigError: a prompt is empty.
    """
    body = check_task(task)
    if isinstance(body, ResponsesRequest):
        body = as_chat(body)
    if isinstance(body, ChatRequest):
        messages = [template_message(message) for message in body.messages]
        tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
        variables = dict(body.chat_template_kwargs or {})
        ids = await backend.encode_chat(messages, tools=tools or None, variables=variables)
        limit = body.max_completion_tokens or body.max_tokens
        return len(ids), (body.n or 1) * room_for(backend, ids, limit, "messages")
    if isinstance(body, CompletionRequest):
        found = [await backend.encode(prompt) for prompt in as_list(body.prompt)]
        limit = completions.DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
        rooms = [room_for(backend, ids, limit or UNKNOWN_ROOM, "prompt") for ids in found]
        new = sum(rooms) if limit else 0
        return sum(map(len, found)), new * max(body.n or 1, body.best_of or 1)
    assert isinstance(body, EmbeddingRequest)
    found = [await backend.encode(prompt) for prompt in as_list(body.input)]
    return sum(map(len, found)), 0
