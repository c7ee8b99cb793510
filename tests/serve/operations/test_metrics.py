# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Metrics: right numbers, few labels, and a board that only shows what exists."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.serve.asgi import ask

from openllm.engine.backend import EngineStats
from openllm.serve.operations.config import LimitSettings
from openllm.serve.operations.exchange import current
from openllm.serve.operations.metrics import ENGINE, Metrics, ModelFacts, ServerFacts
from openllm.serve.operations.observe import Observation
from openllm.serve.operations.turns import Turns

BOARD = Path(__file__).resolve().parents[3] / "deploy" / "grafana" / "openllm.json"
STATS = EngineStats(
    running=1,
    waiting=2,
    blocks=30,
    free_blocks=4,
    prompt_tokens=50,
    cached_tokens=6,
    new_tokens=70,
    preemptions=8,
    drafted_tokens=90,
    accepted_tokens=10,
    steps=11,
)


def facts() -> ServerFacts:
    return ServerFacts({"small": ModelFacts(STATS, 1000, True)}, loads=3, evictions=2)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(Turns(LimitSettings()), facts)


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Name and label values -> value."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def call(metrics: Metrics, endpoint: Any, path: str = "/v1/completions") -> None:
    asyncio.run(ask(Observation(endpoint, [metrics]), "POST", path))


async def answer(scope: Any, receive: Any, send: Any, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def generate(scope: Any, receive: Any, send: Any) -> None:
    exchange = current()
    assert exchange is not None
    exchange.model, exchange.prompt_tokens, exchange.cached_tokens = "small", 10, 4
    exchange.first_token = exchange.started + 0.5
    exchange.last_token = exchange.started + 1.5
    exchange.new_tokens, exchange.queued_s = 11, 0.25
    await answer(scope, receive, send)


def test_a_generation_is_measured(metrics: Metrics) -> None:
    call(metrics, generate)
    found = samples(metrics)
    assert found["openllm_requests_total", ("/v1/completions", "200")] == 1
    assert found["openllm_tokens_total", ("prompt", "small")] == 10
    assert found["openllm_tokens_total", ("cached", "small")] == 4
    assert found["openllm_tokens_total", ("new", "small")] == 11
    assert found["openllm_time_to_first_token_seconds_sum", ("small",)] == pytest.approx(0.5)
    assert found["openllm_time_per_output_token_seconds_sum", ("small",)] == pytest.approx(0.1)
    assert found["openllm_queue_seconds_sum", ()] == 0.25
    assert found["openllm_requests_in_flight", ()] == 0


def test_the_state_of_engines_is_read_when_asked(metrics: Metrics) -> None:
    found = samples(metrics)
    for name in ENGINE:
        gauge = found.get((f"openllm_engine_{name}", ("small",)))
        counter = found.get((f"openllm_engine_{name}_total", ("small",)))
        assert (gauge if counter is None else counter) == getattr(STATS, name)
    assert found["openllm_model_loads_total", ()] == 3
    assert found["openllm_model_evictions_total", ()] == 2
    assert found["openllm_model_healthy", ("small",)] == 1
    assert found["openllm_ready", ()] == 1
    assert found["process_resident_memory_bytes", ()] > 0


def test_labels_stay_few_whatever_clients_send(metrics: Metrics) -> None:
    async def not_found(scope: Any, receive: Any, send: Any) -> None:
        await answer(scope, receive, send, 404)

    before = len(samples(metrics))
    for index in range(200):
        call(metrics, not_found, f"/{index}")
        call(metrics, not_found, f"/v1/models/{index}")
        call(metrics, not_found, f"/admin/{index}")
    histogram = len([key for key in samples(metrics) if key[0] == "openllm_request_seconds_bucket"])
    assert len(samples(metrics)) - before < 4 * histogram and histogram < 60


def test_failures_and_refusals(metrics: Metrics) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError

    async def refused(scope: Any, receive: Any, send: Any) -> None:
        exchange = current()
        assert exchange is not None
        exchange.refused("rate_limit_exceeded")
        await answer(scope, receive, send, 429)

    call(metrics, broken)
    call(metrics, refused)
    found = samples(metrics)
    assert found["openllm_failures_total", ("failed",)] == 1
    assert found["openllm_requests_total", ("/v1/completions", "500")] == 1
    assert found["openllm_refusals_total", ("rate_limit_exceeded",)] == 1


def test_the_state_of_the_queue() -> None:
    turns = Turns(LimitSettings())
    turns.running = 5
    found = samples(Metrics(turns, facts))
    assert found["openllm_turns_taken", ()] == 5
    assert found["openllm_queue_depth", ()] == 0


def board_queries(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["expr"]] if "expr" in node else []
        return own + [query for value in node.values() for query in board_queries(value)]
    return (
        [query for value in node for query in board_queries(value)]
        if isinstance(node, list)
        else []
    )


def test_every_query_of_the_board_names_metrics_and_labels_that_exist(metrics: Metrics) -> None:
    call(metrics, generate)
    families = list(text_string_to_metric_families(metrics.text().decode()))
    labels: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    known = {*labels, *(family.name for family in families)}
    # a counter that has counted nothing has no sample yet
    known |= {f"{family.name}_total" for family in families if family.type == "counter"}
    queries = board_queries(json.loads(BOARD.read_text()))
    assert len(queries) >= 15
    for query in queries:
        plain = re.sub(r'"[^"]*"', "", query)
        names = set(re.findall(r"\b(?:openllm|process)_[a-z_]+", plain))
        assert names and names <= known, query
        for grouped in re.findall(r"by \(([^)]*)\)", plain):
            used = {name.strip() for name in grouped.split(",")} - {"le"}
            allowed = {"reason", "outcome"}.union(*(labels.get(name, set()) for name in names))
            assert used <= allowed, query


def test_the_board_shows_every_metric_of_ours(metrics: Metrics) -> None:
    queries = " ".join(board_queries(json.loads(BOARD.read_text())))
    families = text_string_to_metric_families(metrics.text().decode())
    missing = {
        family.name
        for family in families
        if family.name.startswith("openllm_")
        and not family.name.endswith("_created")
        and family.name not in queries
    }
    assert not missing
