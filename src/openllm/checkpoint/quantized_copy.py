# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Write a model folder again with quantised matrices; vLLM and transformers read most of them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from openllm.checkpoint.copying import MAX_SHARD_BYTES, copy_companions, new_config
from openllm.checkpoint.families.base import Link
from openllm.checkpoint.families.registry import OWN
from openllm.checkpoint.quantization import KEY, write_quantization
from openllm.checkpoint.quantized import join, planned
from openllm.checkpoint.source import Source
from openllm.checkpoint.tensors import Planned
from openllm.checkpoint.weights import write_weights
from openllm.nn.quantized import EMBEDDING, QuantizedTensor, Scheme


def copy_quantized(
    source: Source,
    target: Path,
    matrices: Mapping[str, QuantizedTensor],
    *,
    dynamic: bool = False,
    half: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write config, weights, tokenizer and generation defaults into an empty folder.

    Args:
        source: an open folder.
        target: exists and is empty.
        matrices: our name of each quantised matrix -> what it becomes; all others are copied.
            Those that the architecture stacks must have the same scheme.
        dynamic: the config asks for 8-bit activations; all matrices have 8 bits.
        half: write other matrices of float32 in float16, if they fit.
        max_shard_bytes: of weights in a file.

    Raises:
        CheckpointError: NaN or infinity in the weights, or a damaged file.
        OSError: the folder cannot be written.
    """
    config = new_config(source)
    copies = {item.name: item for item in source.planned()}
    schemes: dict[str, Scheme] = {}
    kept, entries = [], []
    for link in source.links:
        module = link.theirs.removesuffix(".weight")
        whole = join(link, matrices)
        if whole is not None:
            schemes[module] = whole.scheme
            entries += planned(module, whole, packed=not dynamic)
            continue
        copy = copies[link.theirs]
        if len(copy.shape) == 2:
            if not _is_table(link):  # vLLM 0.10 takes what is named there for a linear layer
                kept.append(module)
            copy = _halved(source, link, copy) if half else copy
        entries.append(copy)
    # a table is looked up: it has no activations
    tables = {link.theirs.removesuffix(".weight") for link in source.links if _is_table(link)}
    active = [module for module in schemes if module not in tables] if dynamic else []
    if schemes:
        config[KEY] = write_quantization(schemes, kept, dynamic=active)
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_weights(target, entries, max_shard_bytes)
    copy_companions(source, target, config)


def _is_table(link: Link) -> bool:
    return link.ours == (EMBEDDING,)


def _halved(source: Source, link: Link, copy: Planned) -> Planned:
    """A matrix of float32 in float16, unless a value is too large."""
    largest = torch.finfo(torch.float16).max
    if copy.dtype != torch.float32 or float(source.read(link).abs().amax()) > largest:
        return copy

    def pieces() -> Iterator[torch.Tensor]:
        yield from source.pieces(link, torch.float16)

    return copy._replace(dtype=torch.float16, pieces=pieces())


def portable(source: Source, matrices: Mapping[str, QuantizedTensor]) -> bool:
    """Whether other programs load the folder that `copy_quantized` writes.

    They read linear layers, not quantised embeddings or the transposed layers of GPT-2.
    """
    turned = {name for link in source.links if link.transposed for name in link.ours}
    private = source.family.model_type == OWN
    return not (private or EMBEDDING in matrices or turned & set(matrices))
