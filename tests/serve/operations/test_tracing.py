# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Traces: one span per request, joined to the caller's, without any text of it."""

import asyncio
import gzip
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.serve.asgi import ask, bearer

from openllm.serve.operations.exchange import current
from openllm.serve.operations.observe import Observation
from openllm.serve.operations.tracing import Traces, otlp_exporter, wanted

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def generate(scope: Any, receive: Any, send: Any) -> None:
    exchange = current()
    assert exchange is not None
    exchange.model, exchange.prompt_tokens = "small", 3
    exchange.queued_s, exchange.computing = 0.1, exchange.started + 0.1
    exchange.saw_tokens(1)
    exchange.saw_tokens(1)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the answer"})


async def broken(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("the prompt")


def spans(app: Any, *headers: tuple[bytes, bytes], path: str = "/v1/completions") -> list[Any]:
    exporter = InMemorySpanExporter()
    traces = Traces(exporter, batch=False)
    asyncio.run(
        ask(
            Observation(app, [traces]),
            "POST",
            path,
            headers=headers,
            body=b"the prompt",
            query=b"key=ollm_secretsecret",
        )
    )
    traces.close()
    return list(exporter.get_finished_spans())


def test_a_span_tells_what_was_done_and_when() -> None:
    (span,) = spans(generate, bearer("ollm_secretsecret"))
    assert span.name == "POST /v1/completions" and span.parent is None
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["gen_ai.request.model"] == "small"
    assert span.attributes["gen_ai.usage.input_tokens"] == 3
    assert span.attributes["gen_ai.usage.output_tokens"] == 2
    assert [event.name for event in span.events] == ["prefill", "first token", "last token"]
    text = span.to_json()
    for hidden in ("the prompt", "the answer", "secret", "key="):
        assert hidden not in text


def test_it_is_joined_to_the_trace_of_the_caller() -> None:
    parent = f"00-{TRACE}-{PARENT}-01".encode()
    (span,) = spans(generate, (b"traceparent", parent))
    assert f"{span.context.trace_id:032x}" == TRACE and f"{span.parent.span_id:016x}" == PARENT


@pytest.mark.parametrize(
    "value",
    [b"", b"00-0-0-01", b"\xff", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b"x" * 999],
)
def test_a_broken_traceparent_begins_a_new_trace(value: bytes) -> None:
    (span,) = spans(generate, (b"traceparent", value))
    assert span.parent is None and span.context.trace_id


def test_a_failure_is_marked_without_its_message() -> None:
    (span,) = spans(broken)
    assert span.status.status_code.name == "ERROR" and "the prompt" not in span.to_json()
    assert span.attributes["error.type"].startswith("ValueError at ")


def test_names_of_spans_are_few() -> None:
    assert spans(generate, path="/anything/at/all")[0].name == "POST other"


def test_when_traces_are_wanted() -> None:
    assert not wanted(None, {})
    assert wanted("http://localhost:4318/v1/traces", {})
    assert wanted(None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"})
    assert not wanted("http://x", {"OTEL_SDK_DISABLED": "true"})


def test_spans_arrive_at_a_collector() -> None:
    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            packed = self.headers.get("content-encoding") == "gzip"
            received.append(gzip.decompress(body) if packed else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        traces = Traces(otlp_exporter(f"http://127.0.0.1:{server.server_port}/v1/traces"))
        asyncio.run(ask(Observation(generate, [traces]), "POST", "/v1/completions"))
        traces.close()
        server.shutdown()
        thread.join()
    (message,) = (ExportTraceServiceRequest.FromString(body) for body in received)
    (resource,) = message.resource_spans
    names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert names["service.name"] == "openllm"
    assert resource.scope_spans[0].spans[0].name == "POST /v1/completions"
