# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The web framework that this package is written in."""

from openllm.core.plugins import require


def require_web() -> None:
    """To be called before modules are imported that need it.

    Raises:
        MissingExtra: it is not installed.
    """
    require("fastapi")
