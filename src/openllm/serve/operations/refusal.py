# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Refusals: error answers of the layers before the endpoints, in OpenAI's format."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Send

from openllm.serve.errors import ApiError
from openllm.serve.operations.exchange import current


@dataclass
class Refusal(Exception):
    """A request that is not passed on.

    Attributes:
        status: of HTTP.
        code: for programs.
        message: for people; must not hold what others sent.
        headers: of the answer.
        close: whether the connection is of no more use.
    """

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False

    def body(self) -> bytes:
        """The answer's body."""
        error = ApiError(self.message, status=self.status, code=self.code)
        return json.dumps(error.body(), separators=(",", ":")).encode()

    async def send(self, send: Send) -> None:
        """Answer with it."""
        if exchange := current():
            exchange.refused(self.code)
        body = self.body()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **self.headers,
            **({"connection": "close"} if self.close else {}),
        }
        start: dict[str, Any] = {
            "type": "http.response.start",
            "status": self.status,
            "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()],
        }
        await send(start)
        await send({"type": "http.response.body", "body": body})


def too_busy(message: str, code: str, seconds: float, *, status: int = 503) -> Refusal:
    """A refusal that asks to come back; `Retry-After` is in whole seconds, at least one."""
    return Refusal(status, code, message, {"retry-after": str(max(1, -int(-seconds // 1)))})
