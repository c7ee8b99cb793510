# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Traces: one OpenTelemetry span per request, with the moments that matter and no text of it."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from openllm import __version__
from openllm.core.plugins import require
from openllm.serve.operations.exchange import Exchange

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""The standard's environment variables that turn traces on."""


def wanted(endpoint: str | None, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether traces are to be sent."""
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return not off and (endpoint is not None or any(environment.get(name) for name in ENDPOINTS))


def otlp_exporter(endpoint: str | None) -> Any:
    """Sends spans over HTTP to `endpoint`, else to where the environment says.

    Raises:
        MissingExtra: the library is not installed.
    """
    library = require("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    return library.OTLPSpanExporter(endpoint=endpoint)


class Traces:
    """Makes a span of each request; the caller's `traceparent` becomes its parent.

    Args:
        exporter: an OpenTelemetry span exporter.
        batch: whether spans are sent by a thread of its own, and not when they end.

    Raises:
        MissingExtra: opentelemetry is not installed.
    """

    def __init__(self, exporter: Any, *, batch: bool = True) -> None:
        sdk = require("opentelemetry.sdk.trace")
        export = require("opentelemetry.sdk.trace.export")
        resource = require("opentelemetry.sdk.resources").Resource.create(
            {
                "service.name": os.environ.get("OTEL_SERVICE_NAME", "openllm"),
                "service.version": __version__,
            }
        )
        self._kinds = require("opentelemetry.trace")
        self._parents = require("opentelemetry.trace.propagation.tracecontext")
        processor = export.BatchSpanProcessor if batch else export.SimpleSpanProcessor
        self._provider = sdk.TracerProvider(resource=resource)
        self._provider.add_span_processor(processor(exporter))
        self._tracer = self._provider.get_tracer("openllm.serve", __version__)

    def begin(self, exchange: Exchange, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """See `Observer.begin`."""
        names = {b"traceparent", b"tracestate"}
        carrier = {k.decode(): v.decode("latin-1") for k, v in headers if k in names}
        parent = self._parents.TraceContextTextMapPropagator().extract(carrier)
        exchange.span = self._tracer.start_span(
            f"{exchange.method} {exchange.route}",
            context=parent,
            kind=self._kinds.SpanKind.SERVER,
            start_time=_wall_ns(exchange.started),
        )

    def end(self, exchange: Exchange, seconds: float) -> None:
        """See `Observer.end`."""
        span = exchange.span
        if span is None:
            return
        for name, value in _attributes(exchange).items():
            if value is not None:
                span.set_attribute(name, value)
        for name, moment in (
            ("prefill", exchange.computing),
            ("first token", exchange.first_token),
            ("last token", exchange.last_token),
        ):
            if moment is not None:
                span.add_event(name, timestamp=_wall_ns(moment))
        if exchange.outcome == "failed" or (exchange.status or 0) >= 500:
            code = self._kinds.StatusCode.ERROR
            span.set_status(self._kinds.Status(code, exchange.reason))
        span.end(end_time=_wall_ns(exchange.started + seconds))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _attributes(exchange: Exchange) -> dict[str, Any]:
    """By OpenTelemetry's conventions for HTTP servers and for generative models."""
    return {
        "http.request.method": exchange.method,
        "http.route": exchange.route,
        "http.response.status_code": exchange.status,
        "error.type": exchange.reason,
        "openllm.request_id": exchange.id,
        "openllm.key": exchange.key.name if exchange.key is not None else None,
        "openllm.outcome": exchange.outcome,
        "openllm.queued_s": exchange.queued_s,
        "gen_ai.request.model": exchange.model,
        "gen_ai.usage.input_tokens": exchange.prompt_tokens or None,
        "gen_ai.usage.output_tokens": exchange.new_tokens or None,
        "openllm.cached_tokens": exchange.cached_tokens or None,
    }


def _wall_ns(moment: float) -> int:
    """The time of day of a moment of `time.perf_counter`."""
    return time.time_ns() - int((time.perf_counter() - moment) * 1e9)
