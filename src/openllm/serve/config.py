# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Settings of the server. Importable without torch and without the web libraries."""

from pydantic import Field

from openllm.core.config import Config
from openllm.serve.operations.config import AuthSettings, LimitSettings, ObserveSettings


class ServeSettings(Config):
    """What `openllm serve` can be told."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0: any free one")
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    observe: ObserveSettings = ObserveSettings()
