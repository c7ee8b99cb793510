# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Whether the server can answer, and how it comes to its end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from openllm.serve.operations.turns import Turns

State = Literal["ready", "draining", "unhealthy"]


@dataclass
class Lifecycle:
    """The state that `/ready` reports; `/health` only says that the process answers.

    Attributes:
        turns: closed by an administrator's drain.
        healthy: whether the models can answer.
        stopping: since the first SIGTERM.
    """

    turns: Turns
    healthy: Callable[[], bool]
    stopping: bool = False

    @property
    def state(self) -> State:
        """What the server does now."""
        if self.stopping or not self.turns.open:
            return "draining"
        return "ready" if self.healthy() else "unhealthy"

    def router(self) -> APIRouter:
        """The path `/ready`, for those who choose where requests go."""
        router = APIRouter()

        @router.get("/ready", responses={503: {"description": "send requests elsewhere"}})
        async def ready() -> Response:
            """200 if the server takes requests; 503 while it drains or is unhealthy."""
            state = self.state
            facts = {
                "status": state,
                "running": self.turns.running,
                "waiting": self.turns.waiting,
            }
            if state == "ready":
                return JSONResponse(facts)
            return JSONResponse(facts, 503, headers={"retry-after": "5"})

        return router
