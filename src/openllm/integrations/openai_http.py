# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""HTTP to a server with OpenAI's API: retries, errors that say what to do, streams of events."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

from openllm.core.errors import RefusedError, RemoteError
from openllm.core.plugins import require
from openllm.integrations.http_values import (
    base_url,
    checked_key,
    content_type,
    harmless,
    seconds_of,
)

PASSING = frozenset({408, 425, 429, 502, 503, 504})
"""HTTP statuses worth a retry."""

MOST_BYTES = 1 << 28
"""Longest answer, or event of a stream, that is read."""

MOST_EXPLANATION = 1 << 16
"""Longest refusal that is read."""


class OpenAIClient:
    """Speaks to one server, from one event loop at a time.

    The key is sent to that server only: redirections are not followed. It is in no error and in no
    representation.

    Attributes:
        url: of the API, such as `http://localhost:8000/v1`.
        reachable: whether the last request got an answer.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 600.0,
        attempts: int = 4,
        pause: float = 0.5,
        longest_pause: float = 30.0,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: `http(s)://HOST[:PORT][/PATH]`; without a path, that is `/v1`.
            key: sent as a bearer token.
            timeout: seconds without a byte of an answer before it counts as failed.
            attempts: tries to get an answer to begin.
            pause: seconds before the second try, if the server does not name them; then doubled.
            longest_pause: give up if the server wants to be left alone for longer.

        Raises:
            ConfigError: that is not an address, or the key is not one.
            MissingExtra: httpx is not installed.
        """
        self.url = base_url(url)
        self.reachable = True
        self._key = checked_key(key)
        self._timeout, self._attempts = timeout, attempts
        self._pause, self._longest_pause = pause, longest_pause
        self._httpx: ModuleType = require("httpx")
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def get(self, path: str) -> Any:
        """The JSON at a path.

        Raises:
            RemoteError: unreachable, refused, or not JSON.
        """
        async with self._open("GET", path, None) as response:
            return await self._json(response)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that answers a body.

        Raises:
            RefusedError: the server says that the request is invalid.
            RemoteError: unreachable, or not JSON.
        """
        async with self._open("POST", path, body) as response:
            return await self._json(response)

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Any]:
        """The JSON values of a stream up to `[DONE]`; closing the iterator hangs up.

        Raises:
            RefusedError: the server says that the request is invalid.
            RemoteError: unreachable, broken off, or not a stream of JSON.
        """
        async with self._open("POST", path, body) as response:
            kind = content_type(response)
            if kind != "text/event-stream":
                raise RemoteError(
                    f"{self.url} answers with {kind} where a stream of events is expected; "
                    "is this the address of an API like OpenAI's?"
                )
            async for data in self._data(response):
                if data == b"[DONE]":
                    return
                value = self._parse(data)
                if isinstance(value, dict) and value.get("error"):
                    raise RemoteError(f"{self.url} failed in the middle: {self._reason(value)}")
                yield value
        raise RemoteError(f"{self.url} ended its answer too early; try again")

    async def close(self) -> None:
        """Hang up."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    @asynccontextmanager
    async def _open(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> AsyncIterator[Any]:
        """An answer that has begun well; later failures are not retried."""
        response = await self._begin(method, path, body)
        try:
            yield response
        except self._httpx.TimeoutException:
            raise RemoteError(
                f"{self.url} sent nothing for {self._timeout:g} s; it may be overloaded"
            ) from None
        except self._httpx.TransportError as error:
            raise RemoteError(
                f"{self.url} broke off its answer ({type(error).__name__}); try again"
            ) from None
        finally:
            await response.aclose()

    async def _begin(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        """Send until an answer begins."""
        pause = self._pause
        for attempt in range(1, self._attempts + 1):
            wish: float | None = None
            try:
                response = await self._send(method, path, body)
            except RemoteError as error:
                failure = error
            else:
                if response.status_code == 200:
                    return response
                failure = await self._refusal(response)
                if response.status_code not in PASSING:
                    raise failure
                wish = failure.retry_after
            if attempt == self._attempts or (wish or 0) > self._longest_pause:
                raise failure
            # not all clients at the same moment
            await asyncio.sleep(pause * random.uniform(0.75, 1.25) if wish is None else wish)
            pause = min(2 * pause, self._longest_pause)
        raise AssertionError("no attempts")

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        """Send once; an error is one that may pass."""
        client = self._connect()
        content = None if body is None else json.dumps(body, allow_nan=False).encode()
        request = client.build_request(method, f"{self.url}/{path}", content=content)
        try:
            response = await client.send(request, stream=True)
        except self._httpx.ConnectError as error:
            self.reachable = False
            raise RemoteError(
                f"{self.url} cannot be reached ({error}); is the server running there?"
            ) from None
        except self._httpx.TransportError as error:
            self.reachable = False
            raise RemoteError(
                f"{self.url} does not answer ({type(error).__name__}); try again later"
            ) from None
        self.reachable = True
        return response

    def _connect(self) -> Any:
        """The client of this event loop; connections of another cannot be used."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            headers = {"content-type": "application/json"}
            if self._key is not None:
                headers["authorization"] = f"Bearer {self._key}"
            self._loop = loop
            self._client = self._httpx.AsyncClient(
                headers=headers,
                timeout=self._httpx.Timeout(self._timeout, connect=min(self._timeout, 10.0)),
                limits=self._httpx.Limits(max_connections=None, max_keepalive_connections=64),
            )
        return self._client

    async def _refusal(self, response: Any) -> RemoteError:
        """The error for an answer that is not 200; closes it."""
        try:
            found = await self._bytes(response, MOST_EXPLANATION)
        except (self._httpx.TransportError, RemoteError):
            found = b""
        finally:
            await response.aclose()
        status, code = response.status_code, None
        try:
            body = json.loads(found)
            reason, code = self._reason(body), _code(body)
        except (ValueError, RecursionError):
            reason = f"HTTP {status}"
        if status in (400, 413, 422):
            message = f"{self.url} refuses the request: {reason}"
            return RefusedError(message, status=status, reason=reason, code=code)
        advice = {
            401: "set OPENAI_API_KEY to a key of this server",
            403: "use a key that may do this",
            404: "check the address, and the model's name",
            429: "it has too many requests; try again later",
        }.get(status, "try again later")
        if 300 <= status < 400:
            advice = "redirections are not followed; give the final address"
        return RemoteError(
            f"{self.url} answers {status} ({reason}); {advice}",
            status=status,
            retry_after=seconds_of(response.headers.get("retry-after")),
        )

    async def _json(self, response: Any) -> Any:
        kind = content_type(response)
        if kind != "application/json":
            raise RemoteError(
                f"{self.url} answers with {kind} where JSON is expected; is this the "
                "address of an API like OpenAI's?"
            )
        return self._parse(await self._bytes(response, MOST_BYTES))

    async def _bytes(self, response: Any, most: int) -> bytes:
        found = bytearray()
        async for piece in response.aiter_bytes():
            found += piece
            if len(found) > most:
                raise RemoteError(f"{self.url} answers with more than {most} bytes; ask for less")
        return bytes(found)

    def _parse(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise RemoteError(
                f"{self.url} answers with what is not JSON; is this the address of an API like "
                "OpenAI's?"
            ) from None

    async def _data(self, response: Any) -> AsyncIterator[bytes]:
        """The data of each event: its `data:` lines, joined."""
        rest, lines = bytearray(), []
        async for piece in response.aiter_bytes():
            rest += piece
            if len(rest) + sum(map(len, lines)) > MOST_BYTES:
                raise RemoteError(f"{self.url} sends an event without end; ask for less")
            if b"\n" not in piece:
                continue
            *whole, rest = rest.split(b"\n")
            for line in whole:
                line = line.removesuffix(b"\r")
                if line.startswith(b"data:"):
                    lines.append(bytes(line[5:].removeprefix(b" ")))
                elif not line and lines:
                    yield b"\n".join(lines)
                    lines = []
        # some servers leave out the empty line, or the end of the line, behind the last event
        if b"[DONE]" in (*lines, rest.removeprefix(b"data:").strip()):
            yield b"[DONE]"

    def _reason(self, body: Any) -> str:
        """What the server says is wrong, on one line and without the key."""
        found = body
        for name in ("error", "message", "detail"):
            if isinstance(found, dict) and name in found:
                found = found[name]
        text = found if isinstance(found, str) else json.dumps(found)
        if self._key:
            text = text.replace(self._key, "***")
        return harmless(" ".join(text.split())[:300])


def _code(body: Any) -> str | None:
    """What a refusal is for programs, in OpenAI's format."""
    error = body.get("error") if isinstance(body, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code[:64] if isinstance(code, str) and code.isidentifier() else None
