# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`/metrics`: what Prometheus collects. Every label takes few values, whatever clients send."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from openllm import __version__
from openllm.core.plugins import require
from openllm.engine.backend import EngineStats
from openllm.serve.operations.exchange import Exchange
from openllm.serve.operations.turns import Turns

REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
FIRST_TOKEN_S = (0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1, 2, 4, 8, 15, 30, 60)
TOKEN_S = (0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.1, 0.2, 0.4, 0.8, 1.5)
QUEUE_S = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60)

ENGINE = {
    "running": "continuations that are computed now",
    "waiting": "continuations that have no place in the engine yet",
    "blocks": "blocks of the key-value cache",
    "free_blocks": "blocks of the key-value cache that are free or hold a cached prefix",
    "prompt_tokens": "tokens of prompts",
    "cached_tokens": "tokens of prompts that were found in the prefix cache",
    "new_tokens": "tokens of answers",
    "preemptions": "continuations that had to make place for another",
    "drafted_tokens": "tokens that speculative decoding proposed",
    "accepted_tokens": "tokens of those that were right",
    "steps": "runs of the model",
}
"""Field of `EngineStats` -> its help."""

STATES = {"running", "waiting", "blocks", "free_blocks"}
"""What goes up and down; the rest are totals."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a loaded model."""

    stats: EngineStats
    num_bytes: int
    healthy: bool


@dataclass(frozen=True)
class ServerFacts:
    """What is read when Prometheus asks.

    Attributes:
        models: loaded models by name.
        loads, evictions: totals.
        ready: whether requests are answered.
    """

    models: Mapping[str, ModelFacts]
    loads: int = 0
    evictions: int = 0
    ready: bool = True


class Metrics:
    """Counts requests as an observer; reads the state of engines when asked.

    Raises:
        MissingExtra: prometheus_client is not installed.
    """

    def __init__(self, turns: Turns, facts: Callable[[], ServerFacts]) -> None:
        library = self._library = require("prometheus_client")
        self.registry = library.CollectorRegistry(auto_describe=True)
        library.ProcessCollector(registry=self.registry)
        self._in_flight = self._gauge("requests_in_flight", "requests that have come, not ended")
        self._gauge("queue_depth", "requests that wait for a turn").set_function(
            lambda: turns.waiting
        )
        self._gauge("turns_taken", "requests that have a turn").set_function(lambda: turns.running)
        self._requests = self._counter("requests", "requests", "route", "status")
        self._refusals = self._counter("refusals", "requests refused by a limit", "reason")
        self._failures = self._counter("failures", "requests that failed", "outcome")
        self._tokens = self._counter("tokens", "tokens by kind", "model", "kind")
        self._seconds = self._histogram("request_seconds", "whole requests", REQUEST_S, "route")
        self._first = self._histogram(
            "time_to_first_token_seconds", "request to first token", FIRST_TOKEN_S, "model"
        )
        self._each = self._histogram(
            "time_per_output_token_seconds", "mean from token to token", TOKEN_S, "model"
        )
        self._queued = self._histogram("queue_seconds", "wait for a turn", QUEUE_S)
        self.registry.register(_Collector(require("prometheus_client.core"), facts))

    def begin(self, exchange: Exchange, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """See `Observer.begin`."""
        self._in_flight.inc()

    def end(self, exchange: Exchange, seconds: float) -> None:
        """See `Observer.end`."""
        self._in_flight.dec()
        self._requests.labels(exchange.route, exchange.status).inc()
        self._seconds.labels(exchange.route).observe(seconds)
        if exchange.outcome == "refused":
            self._refusals.labels(exchange.reason).inc()
        elif exchange.outcome != "answered":
            self._failures.labels(exchange.outcome).inc()
        if exchange.model is None:
            return
        self._queued.observe(exchange.queued_s)
        if (first := exchange.first_token_s) is not None:
            self._first.labels(exchange.model).observe(first)
        if (each := exchange.token_s) is not None:
            self._each.labels(exchange.model).observe(each)
        for kind, count in (
            ("prompt", exchange.prompt_tokens),
            ("cached", exchange.cached_tokens),
            ("new", exchange.new_tokens),
        ):
            self._tokens.labels(exchange.model, kind).inc(count)

    def router(self) -> APIRouter:
        """The path `/metrics`."""
        router = APIRouter()

        @router.get("/metrics", include_in_schema=False)
        async def metrics() -> Response:
            return Response(self.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

        return router

    def text(self) -> bytes:
        """All metrics in Prometheus' format."""
        return self._library.generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Any:
        return self._library.Counter(f"openllm_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Any:
        return self._library.Gauge(f"openllm_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Any:
        return self._library.Histogram(
            f"openllm_{name}", text, labels, buckets=buckets, registry=self.registry
        )


class _Collector:
    """Makes metrics of the state of the engines."""

    def __init__(self, core: ModuleType, facts: Callable[[], ServerFacts]) -> None:
        self._core, self._facts = core, facts

    def collect(self) -> Iterator[Any]:
        gauge, counter = self._core.GaugeMetricFamily, self._core.CounterMetricFamily
        facts = self._facts()
        for field in fields(EngineStats):
            kind = gauge if field.name in STATES else counter
            family = kind(f"openllm_engine_{field.name}", ENGINE[field.name], labels=["model"])
            for name, model in facts.models.items():
                family.add_metric([name], getattr(model.stats, field.name))
            yield family
        size = gauge("openllm_model_bytes", "memory of a model's weights", labels=["model"])
        healthy = gauge("openllm_model_healthy", "1 if it can answer", labels=["model"])
        for name, model in facts.models.items():
            size.add_metric([name], model.num_bytes)
            healthy.add_metric([name], float(model.healthy))
        yield from (size, healthy)
        yield counter("openllm_model_loads", "models loaded", value=facts.loads)
        yield counter("openllm_model_evictions", "models freed for others", value=facts.evictions)
        yield gauge("openllm_ready", "1 if requests are answered", value=float(facts.ready))
        version = gauge("openllm_build_info", "of this server", labels=["version"])
        version.add_metric([__version__], 1)
        yield version

    def describe(self) -> Iterator[Any]:
        return self.collect()
