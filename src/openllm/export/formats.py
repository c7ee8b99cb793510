# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The formats that models are exported to: what writes each, and what runs it."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openllm.export.runtime import Runtime

PRECISIONS = {
    "keep": "fp32",
    "fp32": "fp32",
    "f32": "fp32",
    "fp16": "fp16",
    "f16": "fp16",
    "bf16": "bf16",
    "int8": "int8",
    "q8_0": "int8",
    "int4": "int4",
    "q4_0": "int4",
}
"""Data type of the weights, as each format calls it -> precision for `certificate.LIMITS`.

`keep` writes the original's weights unchanged, so nothing may differ.
"""


@dataclass(frozen=True)
class Format:
    """One format; functions are named as `module:function`.

    Attributes:
        help: one line.
        usage: how to run it, for the card; empty where the original's card holds.
        export: called as `export(source, target, **options)`; `target` is empty. It may return
            the data type that it has chosen.
        runtime: called as `runtime(folder)`.
        dtypes: choices of `--dtype`, the default first; none: there is no choice.
        options: further options of the command line that it takes.
        seal: called as `seal(target, verdict)`, if the export shows its certificate itself.
    """

    help: str
    usage: str
    export: str
    runtime: str
    dtypes: tuple[str, ...]
    options: tuple[str, ...] = ()
    seal: str | None = None

    def write(self, source: Path, target: Path, **options: Any) -> str:
        """Write the export of a model folder into an empty folder; returns the data type."""
        chosen = _load(self.export)(source, target, **options)
        return chosen or options.get("dtype", "fp32")

    def load(self, folder: Path) -> Runtime:
        """Load an exported folder."""
        return _load(self.runtime)(folder)

    def show(self, target: Path, verdict: str) -> None:
        """Let the export show its verdict."""
        if self.seal is not None:
            _load(self.seal)(target, verdict)


def _load(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


FORMATS: dict[str, Format] = {
    "hf": Format(
        "safetensors and config for transformers, vLLM and the like",
        "",
        "openllm.export.hf.writer:export_hf",
        "openllm.export.hf.runtime:load",
        ("keep", "fp32", "bf16", "fp16"),
        ("max_shard",),
    ),
    "onnx": Format(
        "a graph with KV cache for onnxruntime",
        "Run `model.onnx` with onnxruntime; `OnnxModel.generate` in OpenLLM is a whole loop.",
        "openllm.export.onnx.writer:export_onnx",
        "openllm.export.onnx.runtime:OnnxModel",
        ("fp32", "fp16", "int8", "int4"),
    ),
    "gguf": Format(
        "one file for llama.cpp and what is built on it",
        "Run the file with llama.cpp: `llama-cli -m FILE.gguf -p Once`.",
        "openllm.export.gguf.writer:export_gguf",
        "openllm.export.gguf.llama_cpp:load",
        ("f16", "f32", "bf16", "q8_0", "q4_0"),
    ),
    "pt2": Format(
        "a graph of torch.export, which runs without our code",
        "Run it with torch alone: `torch.export.load('model.pt2').module()`.",
        "openllm.export.pt2.writer:export_pt2",
        "openllm.export.pt2.writer:Pt2Model",
        (),
    ),
    "web": Format(
        "a page that generates text in a browser, without a server",
        "Open `index.html` in a browser.",
        "openllm.export.web.writer:export_web",
        "openllm.export.web.writer:open_web",
        (),
        ("max_mb", "runtime"),
        "openllm.export.web.writer:show_verdict",
    ),
}
