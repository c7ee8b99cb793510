# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Copy a model folder, tensor by tensor: config, weights, tokenizer; never code."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from openllm.checkpoint.families.base import canonical
from openllm.checkpoint.families.registry import to_hf_config
from openllm.checkpoint.model_dir import TOKENIZER_FILES
from openllm.checkpoint.source import Source
from openllm.checkpoint.tensors import Planned
from openllm.checkpoint.weights import write_weights
from openllm.core.errors import CheckpointError
from openllm.core.files import read_json
from openllm.core.log import progress

MAX_SHARD_BYTES = 4_000_000_000
"""Of weights in one file, unless another limit is asked for."""

IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def copy_model(
    source: Source,
    target: Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    replaced: Mapping[str, Planned] | None = None,
) -> None:
    """Write config, weights, tokenizer and generation defaults into an empty folder.

    Args:
        source: an open folder.
        target: exists and is empty.
        dtype: of the weights; none: as they are.
        max_shard_bytes: of weights in a file.
        replaced: tensors to write instead of those of the same names.

    Raises:
        CheckpointError: NaN or infinity in the weights, or a damaged file.
        OSError: the folder cannot be written.
    """
    config = new_config(source, dtype)
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    copied = [name for theirs, name in source.names.items() if theirs not in (replaced or {})]
    total = sum(source.weights.tensors[name].size for name in copied) / 1e6
    with progress(f"copying {target.name.strip('.')}", total, "MB") as meter:
        planned = source.planned(dtype, lambda count: meter.advance(count / 1e6))
        chosen = [(replaced or {}).get(tensor.name, tensor) for tensor in planned]
        write_weights(target, chosen, max_shard_bytes)
    copy_companions(source, target, config)


def copy_companions(source: Source, target: Path, config: dict[str, Any]) -> None:
    """Write the tokenizer's files and generation defaults."""
    for path in tokenizer_files(source.folder):
        shutil.copyfile(path, target / path.name)
    generation = {name: config[name] for name in IDS if config[name] is not None}
    path = source.folder / "generation_config.json"
    if path.exists():
        generation = read_json(path, CheckpointError, "copy it again, or remove it")
    text = json.dumps(generation, indent=2) + "\n"
    (target / "generation_config.json").write_text(text, encoding="utf-8")


def new_config(source: Source, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """The `config.json` of a copy: of the same family, with the keys all readers expect.

    Raises:
        CheckpointError: the family cannot express what was read from it.
    """
    kind = str(dtype or source.dtype()).removeprefix("torch.")
    bos, eos, pad = (source.values.get(name) for name in IDS)
    family = source.family.model_type
    config = to_hf_config(source.cfg, bos=bos, eos=eos, pad=pad, dtype=kind, family=family)
    again = source.family.read_config(config, "the new config.json")
    if canonical(again) != canonical(source.cfg):
        raise CheckpointError(
            f"{source.folder / 'config.json'} has values that only older readers of {family} "
            "understand; write it again with a current version of transformers"
        )
    return config


def tokenizer_files(folder: Path) -> list[Path]:
    """The tokenizer's files in a folder, chat templates included."""
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
