# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The model folder, which `transformers`, vLLM and llama.cpp load without custom code.

`config.json` (the only source of the architecture), `model.safetensors`, the tokenizer's files,
`generation_config.json`, `README.md` (model card) and `openllm.json` (lineage). An architecture
that `transformers` lacks is written to the same files, which only OpenLLM loads.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from openllm.checkpoint.hf_keys import (
    from_hf_config,
    from_hf_state,
    to_hf_config,
    to_hf_state,
)
from openllm.checkpoint.tensors import save_tensors
from openllm.core.errors import CheckpointError
from openllm.core.files import (
    atomic_folder,
    read_json,
    recover_folder,
    write_json,
)
from openllm.nn.config import ModelConfig
from openllm.nn.model import Transformer
from openllm.text.tokenizer import load_tokenizer

TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "openllm_tokenizer.json",
)
WEIGHTS = "model.safetensors"


def write_model(
    folder: Path | str,
    cfg: ModelConfig,
    state: Mapping[str, Tensor],
    *,
    tokenizer: Path | str,
    lineage: Mapping[str, Any],
    card: str,
) -> None:
    """Write a model folder atomically.

    Args:
        folder: replaced if it exists.
        cfg: the architecture.
        state: weights under our names; written in float32.
        tokenizer: the folder with the tokenizer's files.
        lineage: what the model was made from; becomes `openllm.json`.
        card: the text of the model card.
    """
    vocabulary = load_tokenizer(tokenizer)
    ids = {"bos": vocabulary.bos_id, "eos": vocabulary.eos_id, "pad": vocabulary.pad_id}
    config = to_hf_config(cfg, **ids)
    weights = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in to_hf_state(cfg, state).items()
    }
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


def read_model_config(folder: Path | str) -> ModelConfig:
    """Read the architecture of a model folder.

    Raises:
        CheckpointError: missing folder, missing or broken `config.json`, unknown architecture.
    """
    folder = Path(folder)
    recover_folder(folder)
    mend = "give a model folder, such as RUN/model after 'openllm train'"
    path = folder / "config.json"
    return from_hf_config(read_json(path, CheckpointError, mend), str(path))


def read_lineage(folder: Path | str) -> dict[str, Any]:
    """Read `openllm.json`."""
    mend = "this model was not made by OpenLLM, so its training data is unknown"
    return read_json(Path(folder) / "openllm.json", CheckpointError, mend)


def load_model(folder: Path | str) -> Transformer:
    """Load the model of a folder, in float32 and in evaluation mode.

    Raises:
        CheckpointError: missing, truncated or mismatched weights.
    """
    cfg = read_model_config(folder)
    path = Path(folder) / WEIGHTS
    try:
        hf = load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; copy the whole model folder") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy or train it again") from None
    try:
        with torch.device("meta"):
            model = Transformer(cfg)
        model.load_state_dict(from_hf_state(cfg, hf), assign=True)
    except (KeyError, RuntimeError, TypeError) as error:  # TypeError: sizes beyond 64 bits
        first = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} does not match its config.json: {first}") from None
    return model.float().eval().requires_grad_(False)
