# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`/v1/models`: which models are served."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from openllm.serve.service import Service, service_of

router = APIRouter()


class Model(BaseModel):
    """A model, or an adapter of its `parent`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    parent: str | None
    max_model_len: int | None


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"]
    data: list[Model]


@router.get("/v1/models", responses={200: {"model": ModelList}})
async def list_models(request: Request) -> Response:
    """The models, and their adapters as models of their own."""
    service, started = service_of(request), request.app.state.started
    data = []
    for name in service.models.names():
        data.append(_entry(service, started, name))
        data += [_entry(service, started, name, adapter) for adapter in service.adapters(name)]
    return JSONResponse({"object": "list", "data": data})


@router.get("/v1/models/{model:path}", responses={200: {"model": Model}})
async def retrieve_model(request: Request, model: str) -> Response:
    """One model, by its name or an alias."""
    service = service_of(request)
    choice = service.choose(model)
    entry = _entry(service, request.app.state.started, choice.name, choice.adapter)
    return JSONResponse({**entry, "id": choice.label})


def _entry(
    service: Service, created: int, name: str, adapter: str | None = None
) -> dict[str, object]:
    info = service.models.info(name)
    return {
        "id": name if adapter is None else f"{name}:{adapter}",
        "object": "model",
        "created": created,
        "owned_by": "openllm",
        "parent": None if adapter is None else name,
        "max_model_len": None if info is None else info.max_positions,
    }
