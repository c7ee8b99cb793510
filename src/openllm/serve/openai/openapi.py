# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The OpenAPI schema: the endpoints as FastAPI sees them, and the bodies that they read."""

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from openllm.serve.openai.chat_schemas import ChatCompletion, ChatRequest
from openllm.serve.openai.completion_schemas import Completion, CompletionRequest
from openllm.serve.openai.embeddings import EmbeddingList, EmbeddingRequest
from openllm.serve.openai.native import GenerateRequest, GenerateResponse
from openllm.serve.openai.responses_schemas import ResponseBody, ResponsesRequest


class ErrorDetails(BaseModel):
    """What is wrong, for people and for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """An error."""

    error: ErrorDetails


BODIES: dict[str, tuple[type[BaseModel], type[BaseModel] | None, bool]] = {
    "/v1/chat/completions": (ChatRequest, ChatCompletion, True),
    "/v1/completions": (CompletionRequest, Completion, True),
    "/v1/responses": (ResponsesRequest, ResponseBody, True),
    "/v1/embeddings": (EmbeddingRequest, EmbeddingList, False),
    "/generate": (GenerateRequest, GenerateResponse, False),
    "/generate/stream": (GenerateRequest, None, True),
}
"""Path -> body of a request, of its response (none: only a stream), and whether it can stream."""

REASONS = {
    400: "The request is wrong, or too long for the model.",
    401: "A key is missing or wrong.",
    403: "The key may not do this.",
    404: "There is no such model.",
    408: "The request or its answer took too long.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    421: "The server is not called by this name.",
    429: "Too many requests or tokens; see Retry-After.",
    431: "The headers are too large.",
    500: "The server failed.",
    503: "The server is busy, loads a model or ends; see Retry-After.",
}
"""HTTP status of an error -> what it means."""

EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
"""A server-sent event; its data are JSON, or [DONE] at the end."""

OPEN = ("/", "/health", "/ready", "/openapi.json")
"""Paths that need no key."""

REF = "#/components/schemas/"


def install_openapi(app: FastAPI) -> None:
    """Let the application describe itself truly."""

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app)
        return app.openapi_schema

    app.openapi = schema


def describe(app: FastAPI) -> dict[str, Any]:
    """The schema of an application."""
    schema = get_openapi(
        title=app.title,
        version=app.version,
        description="Language models behind OpenAI's API.",
        routes=app.routes,
    )
    models = {model for row in BODIES.values() for model in row[:2] if model} | {ErrorBody}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, found = models_json_schema(
        [(model, "validation") for model in ordered], ref_template=REF + "{model}"
    )
    parts = schema.setdefault("components", {})
    parts["schemas"] = {**parts.get("schemas", {}), **found["$defs"]}
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which nobody sends
        parts["schemas"].pop(name, None)
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            _complete(path, method, operation)
    return schema


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    """Add to one operation the bodies, errors and keys that FastAPI does not see."""
    operation.pop("summary", None)
    operation["operationId"] = method + re.sub(r"\W+", "_", path).rstrip("_")
    responses = operation["responses"]
    responses.pop("422", None)
    if path in BODIES:
        body, answer, streams = BODIES[path]
        content: dict[str, Any] = {}
        if answer is not None:
            content["application/json"] = {"schema": {"$ref": REF + answer.__name__}}
        if streams:
            content["text/event-stream"] = {"schema": EVENT}
        responses["200"] = {"description": "The answer.", "content": content}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": REF + body.__name__}}},
        }
    for status, reason in REASONS.items():
        if path in BODIES or (status not in (400, 413, 415) and (status != 404 or "{" in path)):
            error = {"application/json": {"schema": {"$ref": REF + "ErrorBody"}}}
            responses.setdefault(str(status), {"description": reason, "content": error})
    if path not in OPEN:
        operation["security"] = [{"key": []}, {}]
