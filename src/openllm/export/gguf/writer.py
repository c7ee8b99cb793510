# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Export to GGUF, which llama.cpp loads with no flags: one file with weights and tokenizer."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from openllm.checkpoint.model_dir import read_model_config
from openllm.checkpoint.source import open_source, split_stored
from openllm.core.errors import CheckpointError
from openllm.core.files import read_json
from openllm.core.log import progress, warn
from openllm.export.gguf.file import BLOCK, FILE_TYPES, Blocks, Dtype, Stored, write_gguf
from openllm.export.gguf.shapes import architecture, context_length, hyperparameters
from openllm.export.gguf.tensors import Packed, packed, rope_tensors
from openllm.export.gguf.tokenizer import tokenizer_metadata
from openllm.export.inventory import model_name
from openllm.nn.config import ModelConfig
from openllm.nn.model import Transformer
from openllm.nn.quantized import QuantizedTensor, Scheme

QUANTIZATION_VERSION = 2
"""Of the layout of blocks."""

PHI3_TOKENS = frozenset({"<unk>", "<s>", "</s>", "<|endoftext|>"})
"""llama.cpp does not load a model named Phi-3 that lacks one of these."""


def export_gguf(source: Path, target: Path, *, dtype: Dtype = "f16") -> None:
    """Write `NAME-DTYPE.gguf` into a folder, tensor by tensor.

    Args:
        source: a model folder.
        target: an existing folder.
        dtype: of matrices; vectors are always in float32.

    Raises:
        CheckpointError: llama.cpp cannot express the model, or its weights do not fit `dtype`.
        TokenizerError: llama.cpp does not have the tokenizer.
    """
    cfg = read_model_config(source)
    shape = architecture(cfg)
    context = context_length(cfg, shape)
    if context < cfg.max_positions:
        warn(
            f"llama.cpp has no attention window in {shape}; the file promises {context} tokens, "
            "up to which the window hides nothing"
        )
    metadata = _general(source, dtype) | tokenizer_metadata(source, cfg.vocab_size)
    if not PHI3_TOKENS.issubset(metadata["tokenizer.ggml.tokens"]):
        metadata["general.name"] = re.sub("(?i)phi-?3", "Phi 3", metadata["general.name"])
    metadata |= {f"{shape}.{key}": value for key, value in hyperparameters(cfg, shape).items()}
    entries = {entry.name: entry for entry in packed(cfg, shape)}
    divisors = rope_tensors(cfg)
    weights = _Weights(source)
    tensors = _plan(cfg, shape, dtype, weights)
    tensors += [Stored(name, tuple(tensor.shape), "f32") for name, tensor in divisors.items()]
    kinds = {tensor.name: tensor.dtype for tensor in tensors}

    def read(name: str) -> NDArray[np.float32] | Blocks:
        if name in divisors:
            return divisors[name].numpy()
        blocks = weights.blocks(entries[name], kinds[name])
        return entries[name].pack(weights.read).numpy() if blocks is None else blocks

    path = target / f"{file_name(source)}-{dtype.upper()}.gguf"
    total = sum(int(np.prod(tensor.shape)) for tensor in tensors)
    with progress(f"writing {path.name}", total, "values") as meter:
        write_gguf(path, shape, metadata, tensors, read, meter)


class _Weights:
    """The weights of a folder by our names."""

    def __init__(self, source: Path) -> None:
        self._model = open_source(source)
        self._links = {name: link for link in self._model.links for name in link.ours}

    def read(self, name: str) -> Tensor:
        """In float32."""
        link = self._links[name]
        return link.split(self._model.read(link).float(), self._model.shapes)[name]

    def scheme(self, name: str) -> Scheme | None:
        """Of a quantised matrix."""
        return self._model.scheme(self._links[name])

    def bits(self, entry: Packed) -> int:
        """Of the finest quantised part; 0: none is quantised."""
        schemes = [self.scheme(name) for name in entry.parts]
        return max(scheme.bits if scheme else 0 for scheme in schemes)

    def blocks(self, entry: Packed, dtype: Dtype) -> Blocks | None:
        """A quantised matrix for a type that can hold its integers; none: it must be converted."""
        room = {"q8_0": 8, "q4_0": 4}.get(dtype, 0)
        parts = {}
        for name in entry.parts:
            scheme = self.scheme(name)
            found = None if scheme is None or scheme.bits > room else self._split(name)
            if found is None:
                return None
            parts[name] = found
        plain = entry._replace(factor=1.0, offset=0.0)  # which scales take up
        whole = plain.pack(lambda name: parts[name].q).to(torch.int8).numpy()
        scales = entry.pack(lambda name: parts[name].scale).half()
        return Blocks(whole, scales.numpy()) if bool(scales.isfinite().all()) else None

    def _split(self, name: str) -> QuantizedTensor | None:
        """A matrix in blocks."""
        found = dict(split_stored(self._model, self._links[name]))[name]
        return found.regrouped(BLOCK) if isinstance(found, QuantizedTensor) else None


def _plan(cfg: ModelConfig, shape: str, dtype: Dtype, weights: _Weights) -> list[Stored]:
    """Names, shapes and types of the tensors of the file."""
    with torch.device("meta"):
        state = Transformer(cfg).state_dict()
    head = "token_embd.weight" if cfg.tie_embeddings and shape != "olmo2" else "output.weight"
    tensors = []
    for entry in packed(cfg, shape):
        size = tuple(entry.pack(state.__getitem__).shape)
        kind = tensor_dtype(entry.name, size, dtype, head)
        if kind == "q4_0" and weights.bits(entry) == 8:
            kind = "q8_0"  # a mixed model keeps its mixture
        tensors.append(Stored(entry.name, size, kind))
    odd = [tensor for tensor in tensors if tensor.dtype == "f16" != dtype]
    if odd:
        warn(
            f"{len(odd)} matrices stay in f16, for their rows are not multiples of {BLOCK} long; "
            f"the first is {odd[0].name}"
        )
    return tensors


def tensor_dtype(name: str, shape: tuple[int, ...], dtype: Dtype, head: str) -> Dtype:
    """The type of one tensor, by llama.cpp's habits.

    Vectors and learned positions are in float32; at 4 bits, the head has 8, for it matters most;
    rows that are not whole blocks are in float16.
    """
    if len(shape) == 1 or name == "position_embd.weight":
        return "f32"
    if dtype in ("q8_0", "q4_0") and shape[-1] % BLOCK:
        return "f16"
    return "q8_0" if dtype == "q4_0" and name == head else dtype


def _general(source: Path, dtype: Dtype) -> dict[str, Any]:
    """Metadata about the file as a whole."""
    values = {
        "general.type": "model",
        "general.name": file_name(source),
        "general.file_type": FILE_TYPES[dtype],
        "general.quantization_version": QUANTIZATION_VERSION,
    }
    card = source / "README.md"
    front = (
        re.match(r"---\n(.*?)\n---\n", card.read_text("utf-8", errors="replace"), re.DOTALL)
        if card.exists()
        else None
    )
    try:
        facts = yaml.safe_load(front[1]) if front else {}
    except yaml.YAMLError:
        facts = {}
    licence = facts.get("license") if isinstance(facts, dict) else None
    if isinstance(licence, str):
        values["general.license"] = licence
    sources = _data(source).get("sources")
    names = [
        f"{data.get('name')} (licence {data.get('licence') or 'not stated'})"
        for data in (sources if isinstance(sources, list) else [])
        if isinstance(data, dict)
    ]
    if names:
        values["general.description"] = f"trained on {', '.join(names)}"
    return values


def _data(source: Path) -> dict[str, Any]:
    """What the lineage, which may come from elsewhere, says of the data."""
    path = source / "openllm.json"
    if not path.exists():
        return {}
    data = read_json(path, CheckpointError, "copy the model folder again").get("data")
    return data if isinstance(data, dict) else {}


def file_name(source: Path) -> str:
    """The model's name in characters that any file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model_name(source)).strip("-.") or "model"
