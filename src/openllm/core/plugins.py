# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The table of optional libraries, and the one way to import them."""

import importlib
from types import ModuleType

from openllm.core.errors import MissingExtra

EXTRAS: dict[str, str] = {
    "fastapi": "serve",
    "gguf": "export",
    "httpx": "serve",
    "huggingface_hub": "hub",
    "llama_cpp": "llama",
    "llguidance": "serve",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "opentelemetry": "serve",
    "prometheus_client": "serve",
    "pyarrow": "data",
    "trafilatura": "data",
    "transformers": "export",
    "uvicorn": "serve",
    "zstandard": "data",
}
"""Import name of each optional library -> the extra of `openllm-lab` that installs it."""

DISTRIBUTIONS: dict[str, str] = {
    "llama_cpp": "llama-cpp-python",
    "opentelemetry": "opentelemetry-sdk",
    "prometheus_client": "prometheus-client",
}
"""Import name -> name on the package index, where they differ."""


def require(module: str) -> ModuleType:
    """Import an optional library, e.g. `require("pyarrow.parquet")`.

    Raises:
        MissingExtra: it is not installed; the message gives the install command.
    """
    top = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(top, EXTRAS[top]) from error
