# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The formats that models are exported to: what writes each, and what runs it."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openllm.export.runtime import Runtime


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        help: one line.
        export: `module:function` called as `export(source, target, **options)`; `target` is empty.
        runtime: `module:function` called as `runtime(folder)`.
        dtypes: choices of `--dtype`, the default first -> precision for `certificate.LIMITS`.
        options: further options that `export` takes.
    """

    help: str
    export: str
    runtime: str
    dtypes: Mapping[str, str]
    options: tuple[str, ...] = field(default=())

    def write(self, source: Path, target: Path, **options: Any) -> None:
        """Write the export of a model folder into an empty folder."""
        _load(self.export)(source, target, **options)

    def load(self, folder: Path) -> Runtime:
        """Load an exported folder."""
        return _load(self.runtime)(folder)


def _load(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


FORMATS: dict[str, Format] = {
    "hf": Format(
        "safetensors and config for transformers, vLLM and the like",
        "openllm.export.hf:export_hf",
        "openllm.export.transformers_runtime:load",
        {"keep": "fp32", "fp32": "fp32", "bf16": "bf16", "fp16": "fp16"},
        ("max_shard_bytes",),
    ),
    "onnx": Format(
        "a graph with KV cache for onnxruntime",
        "openllm.export.onnx:export_onnx",
        "openllm.export.onnx_runtime:OnnxModel.load",
        {"fp32": "fp32", "fp16": "fp16", "int8": "int8", "int4": "int4"},
    ),
    "gguf": Format(
        "one file for llama.cpp and what is built on it",
        "openllm.export.gguf:export_gguf",
        "openllm.export.llama_cpp:LlamaCppModel.load",
        {"f16": "fp16", "f32": "fp32", "bf16": "bf16", "q8_0": "int8", "q4_0": "int4"},
    ),
    "pt2": Format(
        "a graph of torch.export, which runs without our code",
        "openllm.export.pt2:export_pt2",
        "openllm.export.pt2:Pt2Model.load",
        {"fp32": "fp32"},
    ),
    "web": Format(
        "a page that generates text in a browser, without a server",
        "openllm.export.web:export_web",
        "openllm.export.onnx_runtime:OnnxModel.load",
        {"auto": "int8", "int8": "int8", "int4": "int4"},
        ("max_mb", "runtime"),
    ),
}
