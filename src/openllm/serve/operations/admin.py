# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`/admin`: load, free and pin models and adapters, stop and resume taking requests.

Sources are read as the server's own user reads them, so the scope `admin` is for those who may do
all that this user may.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from openllm.core.errors import BusyError, ConfigError, OpenLLMError
from openllm.serve.errors import ApiError
from openllm.serve.openai.body import Body, read
from openllm.serve.operations.lifecycle import Lifecycle
from openllm.serve.service import Models

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][\w./@-]*$")]

Place = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]+$")]


@runtime_checkable
class ManagedModels(Protocol):
    """Models that can be changed while the server runs, as those of a `ModelPool` can."""

    def status(self) -> Sequence[Any]:
        """Of each model, as a dataclass."""
        ...

    def add(self, name: str, source: str, *, pinned: bool = False) -> None:
        """Name a source."""
        ...

    async def load(self, name: str) -> None:
        """Load a model now."""
        ...

    async def unload(self, name: str) -> None:
        """Free a model when its requests have ended."""
        ...

    async def remove(self, name: str) -> None:
        """Forget a model."""
        ...

    def pin(self, name: str, pinned: bool = True) -> None:
        """Never free a model for others, or do so again."""
        ...


@runtime_checkable
class AdapterHost(Protocol):
    """A model that takes adapters while it runs."""

    def load_adapter(self, name: str, folder: Path | str) -> None:
        """Load an adapter, or replace the one of this name."""
        ...

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter."""
        ...


class LoadModel(Body):
    """A model to load; without a source, one that is known already."""

    name: Name
    source: Place | None = None
    pinned: bool = False


class NamedModel(Body):
    """One of the models."""

    name: Name


class PinModel(NamedModel):
    """A model to keep in memory."""

    pinned: bool = True


class LoadAdapter(Body):
    """An adapter of a model, in PEFT's format."""

    model: Name
    name: Name
    folder: Place


class UnloadAdapter(Body):
    """An adapter of a model."""

    model: Name
    name: Name


def admin_router(models: Models, lifecycle: Lifecycle) -> APIRouter:
    """The paths below `/admin`; `Authentication` lets only the scope `admin` through."""
    router = APIRouter(prefix="/admin", include_in_schema=False)
    _add_models(router, models)
    _add_adapters(router, models)

    @router.post("/drain")
    async def drain() -> Response:
        """Take no new requests; those that run go on."""
        lifecycle.turns.open = False
        return JSONResponse(_state(lifecycle))

    @router.post("/resume")
    async def resume() -> Response:
        """Take requests again."""
        lifecycle.turns.open = True
        return JSONResponse(_state(lifecycle))

    return router


def _add_models(router: APIRouter, models: Models) -> None:
    @router.get("/models")
    async def list_models() -> Response:
        return JSONResponse({"models": [asdict(one) for one in _managed(models).status()]})

    @router.post("/models/load")
    async def load(request: Request) -> Response:
        managed, wish = _managed(models), await read(request, LoadModel)
        await _done(_load(managed, wish))
        return JSONResponse({"loaded": wish.name})

    @router.post("/models/unload")
    async def unload(request: Request) -> Response:
        managed, wish = _managed(models), await read(request, NamedModel)
        await _done(managed.unload(wish.name))
        return JSONResponse({"unloaded": wish.name})

    @router.post("/models/remove")
    async def remove(request: Request) -> Response:
        managed, wish = _managed(models), await read(request, NamedModel)
        await _done(managed.remove(wish.name))
        return JSONResponse({"removed": wish.name})

    @router.post("/models/pin")
    async def pin(request: Request) -> Response:
        managed, wish = _managed(models), await read(request, PinModel)
        await _done(_sync(managed.pin, wish.name, wish.pinned))
        return JSONResponse({"name": wish.name, "pinned": wish.pinned})


def _add_adapters(router: APIRouter, models: Models) -> None:
    @router.post("/adapters/load")
    async def load(request: Request) -> Response:
        wish = await read(request, LoadAdapter)

        def change(host: AdapterHost) -> None:
            host.load_adapter(wish.name, wish.folder)

        await _done(_changed(models, wish.model, change))
        return JSONResponse({"loaded": f"{wish.model}:{wish.name}"})

    @router.post("/adapters/unload")
    async def unload(request: Request) -> Response:
        wish = await read(request, UnloadAdapter)

        def change(host: AdapterHost) -> None:
            host.unload_adapter(wish.name)

        await _done(_changed(models, wish.model, change))
        return JSONResponse({"unloaded": f"{wish.model}:{wish.name}"})


def _managed(models: Models) -> ManagedModels:
    if not isinstance(models, ManagedModels):
        raise ApiError("the models of this server stay as they are", status=409, code="fixed")
    return models


def _known(models: Models, name: str) -> str:
    if name not in models.names():
        raise ApiError("there is no such model", status=404, code="model_not_found")
    return name


def _host(backend: object, name: str) -> AdapterHost:
    host = getattr(backend, "adapter_host", backend)
    if not isinstance(host, AdapterHost):
        raise ApiError(f"the model '{name}' takes no adapters", status=409, code="no_adapters")
    return host


async def _changed(models: Models, name: str, change: Callable[[AdapterHost], None]) -> None:
    """Change the adapters of a model, which is loaded first if it is not."""
    async with models.lease(_known(models, name)) as backend:
        await asyncio.to_thread(change, _host(backend, name))


async def _load(models: ManagedModels, wish: LoadModel) -> None:
    """Load a model; a new one that cannot be loaded is forgotten."""
    if wish.source is not None:
        models.add(wish.name, wish.source, pinned=wish.pinned)
    try:
        await models.load(wish.name)
    except BaseException:
        if wish.source is not None:
            await models.remove(wish.name)
        raise
    if wish.pinned:
        models.pin(wish.name)


async def _sync(function: Any, *args: Any, **settings: Any) -> None:
    function(*args, **settings)


async def _done(work: Awaitable[None]) -> None:
    """Wait for a change; an administrator is told what went wrong.

    Raises:
        ApiError: 400 for a wrong request, 503 if there is no room now, 422 for the rest.
    """
    try:
        await work
    except ConfigError as error:
        raise ApiError(str(error)) from None
    except BusyError as error:
        later = {"retry-after": str(max(1, round(error.retry_after)))}
        raise ApiError(str(error), status=503, code="try_again", headers=later) from None
    except (OpenLLMError, OSError) as error:
        raise ApiError(str(error), status=422, code="cannot_load") from None


def _state(lifecycle: Lifecycle) -> dict[str, Any]:
    turns = lifecycle.turns
    return {"status": lifecycle.state, "running": turns.running, "waiting": turns.waiting}
