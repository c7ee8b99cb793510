# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Settings of the server. Importable without torch and without the web libraries."""

from pydantic import Field

from openllm.core.config import Config
from openllm.serve.operations_config import AuthSettings, LimitSettings, ObserveSettings


class ServeSettings(Config):
    """What `openllm serve` can be told."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0: any free one")
    aliases: dict[str, str] = Field({}, description="other names of models: alias -> model")
    max_prompts: int = Field(2048, ge=1, description="most texts in one request")
    max_choices: int = Field(128, ge=1, description="most continuations for one request")
    max_json_depth: int = Field(64, ge=2, le=200, description="deepest nesting of a request")
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    observe: ObserveSettings = ObserveSettings()
