# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Puts what operators need around an application: one call, in the one right order."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from openllm.core.errors import ConfigError, OpenLLMError
from openllm.core.log import warn
from openllm.serve.config import ServeSettings
from openllm.serve.operations.access_log import AccessLog
from openllm.serve.operations.admin import admin_router
from openllm.serve.operations.auth import Authentication
from openllm.serve.operations.bodies import Bodies
from openllm.serve.operations.cancel import Cancellation
from openllm.serve.operations.config import AuthSettings
from openllm.serve.operations.headers import LOCAL, Headers
from openllm.serve.operations.keys import KeyRing, usage_file
from openllm.serve.operations.lifecycle import Lifecycle
from openllm.serve.operations.limits import RateLimits
from openllm.serve.operations.metrics import Metrics, ModelFacts, ServerFacts
from openllm.serve.operations.observe import Observation, Observer
from openllm.serve.operations.tracing import Traces, otlp_exporter, wanted
from openllm.serve.operations.turns import BackPressure, Turns
from openllm.serve.operations.usage import UsageBook
from openllm.serve.operations.watched import WatchedModels
from openllm.serve.service import Models, Service


class Operations:
    """What was installed, for those who run the server."""

    def __init__(self, lifecycle: Lifecycle, closers: Sequence[Callable[[], None]]) -> None:
        self.lifecycle = lifecycle
        self._closers = closers

    def close(self) -> None:
        """Write and send what is still in memory."""
        for close in self._closers:
            try:
                close()
            except OpenLLMError as error:
                warn(str(error))


def install_operations(
    app: FastAPI, service: Service, settings: ServeSettings, *, exporter: Any = None
) -> Operations:
    """Add keys, limits, metrics, traces, logs and states to an application.

    A request passes, from the outside: observation, headers, authentication, rate limits, body,
    cancellation, back-pressure, endpoints.

    Args:
        app: whose endpoints are there already.
        service: its models; they become those that the key of a request may use.
        settings: of the server.
        exporter: where spans go; none: to the endpoint that the settings or the environment name.

    Raises:
        ConfigError: the keys or the daily use cannot be read, or the server would be open to all.
        StorageError: the log or the daily use cannot be written.
        MissingExtra: a library of the extra `serve` is not installed.
    """
    check_exposure(settings)
    auth, limits, observe = settings.auth, settings.limits, settings.observe
    models = service.models
    service.models = WatchedModels(models)
    ring = KeyRing(auth.key_file) if auth.key_file is not None else None
    usage = UsageBook(_usage_file(auth))
    usage.write()  # what cannot be written is better known now
    turns = Turns(limits)
    lifecycle = Lifecycle(turns, lambda: healthy(models))

    observers: list[Observer] = []
    closers: list[Callable[[], None]] = [usage.flush]
    if exporter is not None or wanted(observe.otlp_endpoint):
        found = exporter if exporter is not None else otlp_exporter(observe.otlp_endpoint)
        traces = Traces(found, batch=exporter is None)
        observers.append(traces)
        closers.append(traces.close)
    if observe.metrics:
        metrics = Metrics(turns, lambda: server_facts(models, lifecycle))
        observers.append(metrics)
        app.include_router(metrics.router())
    if observe.access_log != "off":
        log = AccessLog(observe.access_log)
        observers.append(log)
        closers.append(log.close)
    app.include_router(lifecycle.router())
    app.include_router(admin_router(models, lifecycle))

    # the last one that is added is the outermost
    app.add_middleware(BackPressure, turns=turns)
    app.add_middleware(Cancellation, timeout_s=limits.request_timeout_s)
    app.add_middleware(Bodies, settings=limits, keep=observe.log_prompts)
    app.add_middleware(RateLimits, settings=limits, usage=usage)
    app.add_middleware(Authentication, ring=ring)
    app.add_middleware(
        Headers,
        origins=auth.cors_origins,
        hosts=_hosts(settings),
        max_bytes=limits.max_header_bytes,
        closing=lambda: lifecycle.stopping,
    )
    app.add_middleware(Observation, observers=observers)
    return Operations(lifecycle, closers)


def check_exposure(settings: ServeSettings) -> None:
    """Refuse to serve everybody who can reach this machine, unless that is what is wanted.

    Raises:
        ConfigError: no keys are asked for, and the address is not of this machine alone.
    """
    auth = settings.auth
    if auth.key_file is None and settings.host not in LOCAL and not auth.open_to_all:
        raise ConfigError(
            f"at {settings.host}, everybody who reaches this machine could use the server; "
            "make a key with 'openllm keys add NAME' and give its file with --api-key-file, or "
            "say that it is meant with --open-to-all"
        )


def healthy(models: Models) -> bool:
    """Whether no engine has failed.

    Another server that is away may come back: until then only the requests for it are refused.
    """
    loaded = models.loaded().values()
    return all(backend.healthy() for backend in loaded if backend.info.kind != "remote")


def server_facts(models: Models, lifecycle: Lifecycle) -> ServerFacts:
    """What metrics read."""
    loaded = {
        name: ModelFacts(backend.stats(), backend.info.num_bytes, backend.healthy())
        for name, backend in models.loaded().items()
    }
    ready = lifecycle.state == "ready"
    stats = getattr(models, "stats", None)
    if stats is None:
        return ServerFacts(loaded, loads=len(loaded), ready=ready)
    totals = stats()
    return ServerFacts(loaded, totals.loads, totals.evictions, ready)


def _usage_file(auth: AuthSettings) -> Path | None:
    if auth.usage_file is not None:
        return Path(auth.usage_file)
    return None if auth.key_file is None else usage_file(auth.key_file)


def _hosts(settings: ServeSettings) -> Sequence[str]:
    auth = settings.auth
    if auth.allowed_hosts or auth.key_file is not None or auth.open_to_all:
        return auth.allowed_hosts
    return [*LOCAL, settings.host]
