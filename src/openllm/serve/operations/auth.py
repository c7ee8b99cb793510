# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Authentication: every request needs a key whose scopes cover its path, unless a rule opens it."""

from collections.abc import Iterable
from datetime import UTC, datetime

from starlette.types import ASGIApp, Receive, Scope, Send

from openllm.core.log import warn
from openllm.serve.operations.exchange import current
from openllm.serve.operations.keys import Key, KeyRing
from openllm.serve.operations.refusal import Refusal
from openllm.serve.operations.rules import RULES, Rule, rule_of

MAX_CREDENTIAL = 256
"""Bytes; longer ones are refused unread."""

CHALLENGE = {"www-authenticate": 'Bearer realm="openllm"'}


def credential(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key that a request carries, in `Authorization: Bearer` or in `X-API-Key`.

    Raises:
        Refusal: there are several, or the header is not well formed.
    """
    given = [(name, value) for name, value in headers if name in (b"authorization", b"x-api-key")]
    if not given:
        return None
    if len(given) > 1:
        raise _unauthorized("send one key, in one header", "ambiguous_credentials")
    name, value = given[0]
    if name == b"authorization":
        scheme, _, value = value.partition(b" ")
        if scheme.lower() != b"bearer":
            raise _unauthorized(
                "send the key as: Authorization: Bearer KEY", "unsupported_credentials"
            )
    # Keys are made of these; anything else, such as controls or other alphabets, is not a key.
    if not 0 < len(value) <= MAX_CREDENTIAL or not value.isascii():
        raise _unauthorized("this is not an API key", "invalid_api_key")
    text = value.decode("ascii")
    if not text.replace("_", "").replace("-", "").isalnum():
        raise _unauthorized("this is not an API key", "invalid_api_key")
    return text


class Authentication:
    """Lets a request pass if a rule opens its path, or its key has the scope that the rule names.

    Without a key ring, all may call what has a rule, except what needs the scope `admin`.
    """

    def __init__(self, app: ASGIApp, ring: KeyRing | None, rules: tuple[Rule, ...] = RULES) -> None:
        self.app, self.ring, self.rules = app, ring, rules
        self._told: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer why not."""
        if scope["type"] == "websocket":  # there are no websockets, so no rule can open one
            await send({"type": "websocket.close", "code": 1008, "reason": "not served"})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
        except Refusal as refusal:
            await refusal.send(send)
            return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        rule = rule_of(scope["path"], self.rules)
        if rule is not None and rule.scope is None:
            return
        key = self._key(scope) if self.ring is not None else None
        if rule is None:
            raise Refusal(404, "not_found", "there is no such path")
        if self.ring is None:
            if rule.scope == "admin":
                raise Refusal(404, "not_found", "there is no such path; it needs an admin key")
            return
        assert key is not None
        if rule.scope not in key.scopes:
            raise Refusal(
                403, "missing_scope", f"this key lacks the scope '{rule.scope}'; use another key"
            )
        if exchange := current():
            exchange.key = key

    def _key(self, scope: Scope) -> Key:
        assert self.ring is not None
        secret = credential(scope["headers"])
        if secret is None:
            raise _unauthorized("send an API key as: Authorization: Bearer KEY", "missing_api_key")
        key = self.ring.find(secret)
        if self.ring.problem not in (None, self._told):
            warn(f"the keys stay as they were: {self.ring.problem}")
        self._told = self.ring.problem
        if key is None:
            raise _unauthorized("this API key is not known here", "invalid_api_key")
        if problem := key.problem(datetime.now(UTC)):
            raise _unauthorized(f"this API key is {problem}; ask for a new one", f"{problem}_key")
        return key


def _unauthorized(message: str, code: str) -> Refusal:
    return Refusal(401, code, message, CHALLENGE)
