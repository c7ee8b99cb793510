# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The outermost layer: gives each request its id, sees how it ends, and hides what went wrong.

No traceback, prompt or secret leaves it: clients get an id, the log gets the type and the place of
an error.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Sequence
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openllm.serve.operations.exchange import Exchange, answering
from openllm.serve.operations.refusal import Refusal, too_busy
from openllm.serve.operations.rules import RULES, Rule, rule_of

ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
CLIENT_LEFT = 499
"""Status in logs and metrics of a request that nobody waited for."""


class Observer(Protocol):
    """Is told of every request; must be quick and must not fail."""

    def begin(self, exchange: Exchange, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """A request has come."""
        ...

    def end(self, exchange: Exchange, seconds: float) -> None:
        """It is answered, or given up."""
        ...


class Observation:
    """Tells observers of each request, and answers what fails below with an error of ours."""

    def __init__(
        self, app: ASGIApp, observers: Sequence[Observer], *, rules: tuple[Rule, ...] = RULES
    ) -> None:
        self.app, self.observers, self.rules = app, observers, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and watch."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = self._exchange(scope)
        with answering(exchange):
            for observer in self.observers:
                observer.begin(exchange, scope["headers"])
            try:
                await self._answer(exchange, scope, receive, send)
            finally:
                if exchange.status is None:
                    exchange.status = CLIENT_LEFT
                seconds = time.perf_counter() - exchange.started
                for observer in reversed(self.observers):
                    observer.end(exchange, seconds)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        name = (b"x-request-id", exchange.id.encode())

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), name]}
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except asyncio.CancelledError:  # the server stops and does not wait any longer
            exchange.refused("stopping")
            if exchange.status is None:
                await too_busy("the server stops; ask again soon", "stopping", 1).send(sending)
        except Exception as error:
            if exchange.status is None:
                message = f"the server failed; its log has more under {exchange.id}"
                await Refusal(500, "server_error", message).send(sending)
            exchange.failed(error)

    def _exchange(self, scope: Scope) -> Exchange:
        rule = rule_of(scope["path"], self.rules)
        given = [value for name, value in scope["headers"] if name == b"x-request-id"]
        text = given[0].decode("latin-1") if len(given) == 1 else ""
        client = scope.get("client")
        return Exchange(
            id=text if ID.fullmatch(text) else f"req_{uuid.uuid4().hex}",
            method=scope["method"] if scope["method"] in METHODS else "other",
            route=rule.path if rule is not None else "other",
            client=client[0] if client else "",
        )
