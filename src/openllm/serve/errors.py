# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Errors as clients of OpenAI's API expect them; nothing of the server's inside gets out."""

import json
import math
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openllm.core.errors import (
    BusyError,
    ConfigError,
    EngineError,
    OpenLLMError,
    RefusedError,
    RemoteError,
    TemplateError,
)
from openllm.core.log import warn
from openllm.serve.operations.exchange import current

INVALID = "invalid_request_error"
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
"""HTTP status -> type of the error, where it is not `invalid_request_error`."""


class ApiError(Exception):
    """An answer other than success.

    Attributes:
        status: HTTP status.
        message: for the user; without secrets, paths and prompts.
        param: the field of the request that is wrong.
        code: for programs.
        headers: of the response.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The JSON that is sent."""
        kind = TYPES.get(self.status, INVALID)
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> Response:
        """The HTTP response."""
        return JSONResponse(self.body(), self.status, headers=self.headers)


def as_api_error(error: Exception) -> ApiError:
    """What a client is told about an error; an unexpected one is logged by its type only."""
    answer = _answer(error)
    if answer.status >= 500 and (exchange := current()):
        exchange.failed(error)
    return answer


def _answer(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RefusedError):  # its message holds an address, which is not for clients
        return ApiError(error.reason, code=error.code)
    if isinstance(error, ConfigError | TemplateError):
        return ApiError(str(error))
    if isinstance(error, BusyError):
        return _later("there is no room for this model now; try again", error.retry_after)
    if isinstance(error, RemoteError):
        return _of_remote(error)
    if isinstance(error, EngineError):
        return ApiError("the model failed while it computed this; try again", status=500)
    if isinstance(error, OpenLLMError):
        warn(str(error))
    else:
        warn(f"a request failed: {type(error).__name__}")
    return ApiError("the server failed; see its log", status=500)


def _of_remote(error: RemoteError) -> ApiError:
    """The error if the server behind a model did not answer; its words may be secret."""
    warn(f"another server: {error}")
    if error.status == 429:
        return _later("the server behind this model is busy", error.retry_after, status=429)
    return _later("the server behind this model cannot be reached or refused", error.retry_after)


def _later(message: str, seconds: float | None, *, status: int = 503) -> ApiError:
    wait = str(max(1, math.ceil(seconds or 1)))
    return ApiError(message, status=status, code="try_again", headers={"Retry-After": wait})


def install_errors(app: FastAPI) -> None:
    """Answer every error in OpenAI's format."""

    async def known(request: Request, error: Exception) -> Response:
        return as_api_error(error).response()

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _of_http(request, error).response()

    app.add_exception_handler(ApiError, known)
    app.add_exception_handler(OpenLLMError, known)
    app.add_exception_handler(HTTPException, http)
    app.add_middleware(Faults)


def _of_http(request: Request, error: HTTPException) -> ApiError:
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return ApiError("there is no such path", status=404, code="not_found", headers=headers)
    if error.status_code == 405:
        message = f"{request.method} is not possible here; use {headers.get('Allow', 'another')}"
        return ApiError(message, status=405, code="method_not_allowed", headers=headers)
    return ApiError(str(error.detail), status=error.status_code, headers=headers)


class Faults:
    """Answers unexpected errors with 500, so that no traceback reaches a client or a log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            answer = as_api_error(error)
            if not started:
                await answer.response()(scope, receive, send)


def error_event(error: Exception) -> bytes:
    """An error in the middle of a stream, as a server-sent event."""
    return f"data: {json.dumps(as_api_error(error).body())}\n\n".encode()
