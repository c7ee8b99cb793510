# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Export to the format of `transformers`, in the dtype and shards that are asked for."""

from pathlib import Path

import torch

from openllm.checkpoint.copying import MAX_SHARD_BYTES, copy_model
from openllm.checkpoint.families.registry import OWN
from openllm.checkpoint.source import open_source
from openllm.core.errors import CheckpointError

DTYPES = {"keep": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def export_hf(
    source: Path,
    target: Path,
    *,
    dtype: str = "keep",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a model folder again, tensor by tensor.

    Args:
        source: a model folder.
        target: an existing empty folder.
        dtype: of the weights, one of `DTYPES`.
        max_shard_bytes: of weights in a file.

    Raises:
        CheckpointError: the folder cannot be read, or no architecture of `transformers` fits it.
    """
    model = open_source(source)
    if model.family.model_type == OWN:
        raise CheckpointError(
            f"{source} has a shape that no architecture of transformers has, so only OpenLLM can "
            "load it; train a model without 'research' settings and with a known mixture of parts"
        )
    copy_model(model, target, dtype=DTYPES[dtype], max_shard_bytes=max_shard_bytes)
