# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`/v1/models`: which models are served."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from openllm.serve.service import Service

router = APIRouter()


def service_of(request: Request) -> Service:
    """The service of the app that a request came to."""
    return request.app.state.service


@router.get("/v1/models")
async def list_models(request: Request) -> Response:
    """The models, and their adapters as models of their own."""
    service = service_of(request)
    started = request.app.state.started
    data = []
    for name in service.models.names():
        data.append(_entry(name, started, None))
        data += [_entry(f"{name}:{one}", started, name) for one in service.adapters(name)]
    return JSONResponse({"object": "list", "data": data})


def _entry(name: str, created: int, parent: str | None) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "openllm",
        "parent": parent,
    }
