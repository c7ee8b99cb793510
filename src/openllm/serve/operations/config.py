# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Settings of a server's operation: who may call it, how much, and what is seen of it."""

from typing import Self

from pydantic import Field, model_validator

from openllm.core.config import Config


class AuthSettings(Config):
    """Who may call."""

    key_file: str | None = Field(None, description="file of `openllm keys`; none: all may call")
    usage_file: str | None = Field(
        None, description="where daily use per key is kept (default: beside the key file)"
    )
    open_to_all: bool = Field(False, description="other machines may call without a key")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="host names that requests may address; none: any, or local ones if keyless"
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="origins whose pages may call from a browser, such as https://example.org"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for origin in self.cors_origins:
            scheme, found, rest = origin.partition("://")
            if not found or scheme not in ("http", "https") or not rest or "/" in rest:
                raise ValueError(
                    f"cors_origins: '{origin}' is not an origin; write it like https://example.org"
                )
        return self


class LimitSettings(Config):
    """How much a client, and all clients together, may ask for."""

    requests_per_minute: int | None = Field(None, ge=1, description="per key, else per address")
    tokens_per_minute: int | None = Field(None, ge=1, description="per key, else per address")
    max_body_bytes: int = Field(4 << 20, ge=1024)
    max_header_bytes: int = Field(32 << 10, ge=4096, description="of the request line and headers")
    max_running: int = Field(64, ge=1, description="requests that are answered at the same time")
    max_queue: int = Field(256, ge=0, description="requests that may wait for their turn")
    max_connections: int = Field(1024, ge=1)
    queue_timeout_s: float = Field(60, gt=0, description="a request that waits longer gets a 503")
    header_timeout_s: float = Field(10, gt=0, description="for the headers of a request to arrive")
    body_timeout_s: float = Field(30, gt=0, description="for the body of a request to arrive")
    request_timeout_s: float = Field(600, gt=0, description="from the request to its answer's end")
    write_timeout_s: float = Field(60, gt=0, description="a client that reads nothing is cut off")
    keep_alive_s: int = Field(30, ge=1, description="an idle connection is closed")
    lame_duck_s: float = Field(
        0, ge=0, description="before a drain: still accept, but report not to be ready"
    )
    drain_s: float = Field(60, ge=0, description="time that running requests have after SIGTERM")


class ObserveSettings(Config):
    """What is written and measured."""

    access_log: str = Field("-", description="file; -: standard error; off: none")
    log_prompts: bool = Field(False, description="write what clients send into the access log")
    metrics: bool = Field(True, description="serve /metrics")
    otlp_endpoint: str | None = Field(
        None, description="where OpenTelemetry traces go, such as http://localhost:4318/v1/traces"
    )
