# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The application: every endpoint over one service."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from openllm import __version__
from openllm.serve import page
from openllm.serve.config import ServeSettings
from openllm.serve.errors import install_errors
from openllm.serve.openai import chat, completions, embeddings, models, native, responses
from openllm.serve.openai.openapi import install_openapi
from openllm.serve.service import Service


def create_app(
    service: Service,
    settings: ServeSettings,
    *,
    startup: Callable[[], Awaitable[None]] | None = None,
) -> FastAPI:
    """The ASGI application; it closes the service when it ends.

    Args:
        service: the models.
        settings: of the server.
        startup: what must be done before the first request is answered, such as loading models.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            if startup is not None:
                await startup()
            yield
        finally:
            await service.close()

    # The pages that FastAPI makes of the schema load scripts from elsewhere; docs/api.md is ours.
    app = FastAPI(
        title="OpenLLM",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.service, app.state.settings = service, settings
    app.state.started = int(time.time())
    install_errors(app)
    for part in (models, chat, completions, responses, embeddings, native, page):
        app.include_router(part.router)
    install_openapi(app)
    return app
