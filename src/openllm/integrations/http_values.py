# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Values of HTTP: addresses and keys that users give, headers and texts that servers send."""

import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from openllm.core.errors import ConfigError


def base_url(url: str) -> str:
    """The address that paths are appended to."""
    parts = urlsplit(url)
    try:
        fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise ConfigError("give a server as http://HOST:PORT/v1 or https://HOST/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(
            "the address of a server must not hold a name, password or query; "
            "set its key as OPENAI_API_KEY"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


def checked_key(key: str | None) -> str | None:
    """A key that can be sent; the error must not tell it."""
    if key is None:
        return None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError("the server's key must be one word of ASCII characters; correct it")
    return key


def content_type(response: Any) -> str:
    """What an answer says that its body is."""
    found = response.headers.get("content-type", "no content type")
    return harmless(found.partition(";")[0].strip().lower()[:100])


def harmless(text: str) -> str:
    """Without what could steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def seconds_of(header: str | None) -> float | None:
    """How long `Retry-After` says to wait: seconds, or a date."""
    if not header:
        return None
    try:
        found = float(header)
    except ValueError:
        try:
            found = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
        found = max(found, 0.0)
    return found if 0 <= found < float("inf") else None
