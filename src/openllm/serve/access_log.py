# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The access log: one line of JSON per request, without keys, queries and, by default, prompts."""

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO, Any

from openllm.core.files import TEXT, storage_errors
from openllm.core.log import warn
from openllm.serve.exchange import Exchange
from openllm.serve.keys import SECRET

MAX_PROMPT_CHARS = 16_384
HIDDEN = "[key]"


class AccessLog:
    """Writes a line when a request ends.

    A file that is moved away is begun anew at the next line, as programs that rotate logs expect.

    Args:
        path: of the file; "-" is standard error.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(self, path: str) -> None:
        self.path = None if path == "-" else path
        self._file: IO[str] | None = None
        self._inode: int | None = None
        self._told = False
        if self.path is not None:
            with storage_errors(self.path):
                self._open(self.path)

    def begin(self, exchange: Exchange, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """See `Observer.begin`."""

    def end(self, exchange: Exchange, seconds: float) -> None:
        """See `Observer.end`."""
        line = redacted(json.dumps(entry(exchange, seconds), ensure_ascii=True)) + "\n"
        try:
            self._write(line)
            self._told = False
        except OSError as error:  # a full disk must not fail the request
            if not self._told:
                warn(f"the access log cannot be written ({error.strerror}); lines are lost")
            self._told = True

    def _write(self, line: str) -> None:
        if self.path is None:
            sys.stderr.write(line)
            return
        if self._moved(self.path):
            self._open(self.path)
        assert self._file is not None
        self._file.write(line)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _moved(self, path: str) -> bool:
        try:
            return os.stat(path).st_ino != self._inode
        except FileNotFoundError:
            return True

    def _open(self, path: str) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        self.close()
        self._file = os.fdopen(handle, "a", **TEXT)
        self._inode = os.fstat(handle).st_ino


def entry(exchange: Exchange, seconds: float) -> dict[str, Any]:
    """What is written about a request."""
    facts: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "id": exchange.id,
        "client": exchange.client,
        "key": exchange.key.name if exchange.key is not None else None,
        "method": exchange.method,
        "route": exchange.route,
        "status": exchange.status,
        "outcome": exchange.outcome,
        "reason": exchange.reason,
        "model": exchange.model,
        "seconds": round(seconds, 4),
        "queued_s": _rounded(exchange.queued_s or None),
        "first_token_s": _rounded(exchange.first_token_s),
        "token_s": _rounded(exchange.token_s),
        "prompt_tokens": exchange.prompt_tokens or None,
        "cached_tokens": exchange.cached_tokens or None,
        "new_tokens": exchange.new_tokens or None,
    }
    if exchange.body is not None:
        text = exchange.body.decode("utf-8", "replace")
        facts["request"] = text[:MAX_PROMPT_CHARS]
    return {name: value for name, value in facts.items() if value is not None}


def redacted(text: str) -> str:
    """The text without anything that looks like one of our keys."""
    return SECRET.sub(HIDDEN, text)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 5)
