# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The model folder, which `transformers`, vLLM and llama.cpp load without custom code.

`config.json` (the only source of the architecture), `model.safetensors` or shards of it with an
index, the tokenizer's files, `generation_config.json`, `README.md` (model card) and `openllm.json`
(lineage). An architecture that `transformers` lacks is written to the same files, which only
OpenLLM loads.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openllm.checkpoint.families.base import Family
from openllm.checkpoint.families.registry import FAMILIES, to_hf_config, to_hf_state
from openllm.checkpoint.quantization import KEY, write_quantization
from openllm.checkpoint.quantized import join, planned
from openllm.checkpoint.source import open_source, read_config
from openllm.checkpoint.tensors import save_tensors
from openllm.checkpoint.weights import INDEX, WEIGHTS
from openllm.core.errors import CheckpointError
from openllm.core.files import atomic_folder, read_json, write_json
from openllm.nn.config import ModelConfig
from openllm.nn.model import Transformer
from openllm.nn.quantized import QuantizedTensor, Scheme
from openllm.text.load import load_tokenizer

TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "openllm_tokenizer.json",
)
"""The files of a tokenizer, and of the chat templates that come with it."""

MODEL_FILES = (
    "config.json",
    WEIGHTS,
    INDEX,
    *TOKENIZER_FILES,
    "generation_config.json",
    "README.md",
    "openllm.json",
)
"""All files of a model folder but shards."""


def write_model(
    folder: Path | str,
    cfg: ModelConfig,
    state: Mapping[str, Tensor],
    *,
    tokenizer: Path | str,
    lineage: Mapping[str, Any],
    card: str,
    matrices: Mapping[str, QuantizedTensor] | None = None,
) -> None:
    """Write a model folder atomically.

    Args:
        folder: replaced if it exists.
        cfg: the architecture.
        state: weights under our names; written in float32.
        tokenizer: the folder with the tokenizer's files.
        lineage: what the model was made from; becomes `openllm.json`.
        card: the text of the model card.
        matrices: what some of the weights are stored as instead.
    """
    vocabulary = load_tokenizer(tokenizer)
    ids = {"bos": vocabulary.bos_id, "eos": vocabulary.eos_id, "pad": vocabulary.pad_id}
    config = to_hf_config(cfg, **ids)
    family = FAMILIES[config["model_type"]]
    rounded, schemes = _quantized(family, state, matrices or {})
    weights = rounded | {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in to_hf_state(family, state).items()
        if name.removesuffix(".weight") not in schemes
    }
    if schemes:
        kept = [
            name for name, tensor in weights.items() if tensor.ndim == 2 and name not in rounded
        ]
        names = [name.removesuffix(".weight") for name in kept]
        config[KEY] = write_quantization(schemes, names)
    with atomic_folder(folder) as target:
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_tensors(target / WEIGHTS, weights)
        for name in TOKENIZER_FILES:
            if (Path(tokenizer) / name).exists():
                shutil.copyfile(Path(tokenizer) / name, target / name)
        generation = {f"{name}_token_id": value for name, value in ids.items()}
        (target / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
        (target / "README.md").write_text(card, encoding="utf-8")
        write_json(target / "openllm.json", dict(lineage))


def _quantized(
    family: Family, state: Mapping[str, Tensor], matrices: Mapping[str, QuantizedTensor]
) -> tuple[dict[str, Tensor], dict[str, Scheme]]:
    """The tensors of quantised matrices in the file, and the scheme of each module."""
    tensors, schemes = {}, {}
    for link in family.links(state) if matrices else []:
        whole, module = join(link, matrices), link.theirs.removesuffix(".weight")
        if whole is not None:
            schemes[module] = whole.scheme
            for item in planned(module, whole, packed=True):
                pieces = [piece.to("cpu").reshape(-1) for piece in item.pieces]
                tensors[item.name] = torch.cat(pieces).view(item.shape)
    return tensors, schemes


def read_model_config(folder: Path | str) -> ModelConfig:
    """Read the architecture of a model folder.

    Raises:
        CheckpointError: missing folder, missing or broken `config.json`, unknown architecture.
    """
    return read_config(Path(folder))[2]


def read_lineage(folder: Path | str) -> dict[str, Any]:
    """Read `openllm.json`."""
    mend = "this model was not made by OpenLLM, so its training data is unknown"
    return read_json(Path(folder) / "openllm.json", CheckpointError, mend)


def load_model(folder: Path | str, *, dtype: torch.dtype = torch.float32) -> Transformer:
    """Load the model of a folder, in evaluation mode, tensor by tensor.

    Args:
        folder: ours, or any that `openllm import` reads.
        dtype: of the weights in memory.

    Raises:
        CheckpointError: missing, truncated or mismatched weights, NaN or infinity in them.
    """
    source = open_source(Path(folder))
    state: dict[str, Tensor] = {}
    for link in source.links:
        state |= link.split(source.read(link).to(dtype), source.shapes)
    source.model.load_state_dict(state, assign=True)
    return source.model.eval().requires_grad_(False)
