# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What the server serves: named models, and which of them a request means."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request

from openllm.engine.backend import Backend, BackendInfo
from openllm.serve.errors import ApiError


class Models(Protocol):
    """Backends by name."""

    def names(self) -> Sequence[str]:
        """All names, loaded or not."""
        ...

    def info(self, name: str) -> BackendInfo | None:
        """What is known of a model; none before it is loaded first."""
        ...

    def lease(self, name: str) -> AbstractAsyncContextManager[Backend]:
        """The model, loaded first if necessary; it is not freed before the lease ends.

        Raises:
            EngineError: there is no memory for it.
        """
        ...

    def loaded(self) -> Mapping[str, Backend]:
        """Those that are loaded now, to read their counters."""
        ...

    async def close(self) -> None:
        """Close all."""
        ...


class FixedModels:
    """Models that are loaded once and stay."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = dict(backends)

    def names(self) -> Sequence[str]:
        """See `Models.names`."""
        return list(self._backends)

    def info(self, name: str) -> BackendInfo | None:
        """See `Models.info`."""
        return self._backends[name].info

    def loaded(self) -> Mapping[str, Backend]:
        """See `Models.loaded`."""
        return self._backends

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[Backend]:
        """See `Models.lease`."""
        yield self._backends[name]

    async def close(self) -> None:
        """See `Models.close`."""
        for backend in self._backends.values():
            await backend.close()


@dataclass(frozen=True)
class Choice:
    """The model that a request means.

    Attributes:
        label: as the request called it; responses repeat it.
        name: of the model.
        adapter: of the model's adapters; none: the model alone.
    """

    label: str
    name: str
    adapter: str | None = None


class Service:
    """Finds the model that a request means.

    Requests call a model by its name or an alias, and one of its adapters `MODEL:ADAPTER`. Where
    only one model is served, a request may leave the name out.
    """

    def __init__(
        self,
        models: Models,
        aliases: Mapping[str, str] | None = None,
        adapters: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Serve models.

        Args:
            models: by name.
            aliases: other name -> name of a model.
            adapters: name of a model -> names of the adapters that are loaded with it.
        """
        self.models = models
        self.aliases = dict(aliases or {})
        self._adapters = dict(adapters or {})

    def choose(self, label: str | None) -> Choice:
        """The model that a label stands for.

        Raises:
            ApiError: 404, there is no such model; 400, none is named and there are several.
        """
        names = self.models.names()
        if label is None:
            if len(names) != 1:
                raise ApiError(
                    "several models are served; name one as 'model', see /v1/models",
                    param="model",
                    code="missing_model",
                )
            return Choice(names[0], names[0])
        name = self.aliases.get(label, label)
        if name in names:
            return Choice(label, name)
        base, colon, adapter = name.rpartition(":")
        base = self.aliases.get(base, base)
        if colon and base in names and adapter in self.adapters(base):
            return Choice(label, base, adapter)
        raise no_such_model()

    def adapters(self, name: str) -> Sequence[str]:
        """Names of a model's adapters."""
        loaded = self.models.loaded().get(name)
        return self._adapters.get(name, ()) if loaded is None else loaded.info.adapters

    def lease(self, choice: Choice) -> AbstractAsyncContextManager[Backend]:
        """The backend of a chosen model, for the time of a request."""
        return self.models.lease(choice.name)

    async def close(self) -> None:
        """Cancel what is running and free the models."""
        await self.models.close()


def no_such_model() -> ApiError:
    """What a request for a model is told that is not served, or not to its key."""
    return ApiError(
        "there is no such model here; /v1/models lists those that are served",
        status=404,
        param="model",
        code="model_not_found",
    )


def service_of(request: Request) -> Service:
    """The service of the app that a request came to."""
    return request.app.state.service
