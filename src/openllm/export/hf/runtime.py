# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A model folder in `transformers`, as its users load it."""

# T time, D model, V vocabulary

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from openllm.checkpoint.families.own import OWN
from openllm.checkpoint.source import open_source
from openllm.core.log import progress, say
from openllm.core.plugins import require
from openllm.export.eager import EagerModel, outputs_of
from openllm.export.runtime import Runtime


def load(folder: Path) -> Runtime:
    """Load a folder in transformers; in OpenLLM if only that knows the shape or is installed.

    Raises:
        CheckpointError: missing, truncated or mismatched weights.
    """
    source = open_source(folder)  # transformers would fill what is missing with random numbers
    if source.family.model_type == OWN:
        return EagerModel.load(folder)
    if importlib.util.find_spec("transformers") is None:
        say("transformers is not installed: the folder is checked in OpenLLM itself")
        return EagerModel.load(folder)
    return TransformersModel(folder)


class TransformersModel:
    """A model of `transformers` in float32, with plain attention."""

    name = "transformers"

    def __init__(self, folder: Path) -> None:
        transformers: Any = require("transformers")
        self.version: str = transformers.__version__
        transformers.utils.logging.disable_progress_bar()
        # soft caps exist in its plain attention only
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
        ).eval()

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """(T, V): logits after each token of one text."""
        return self.model(torch.tensor([list(ids)])).logits[0].float().numpy()

    @torch.inference_mode()
    def layers(self, ids: Sequence[int]) -> list[NDArray[np.float32]]:
        """The residual stream (T, D) after each layer."""
        base = self.model.base_model
        blocks = base.layers if hasattr(base, "layers") else base.h
        return outputs_of(blocks, self.model, ids)

    @torch.inference_mode()
    def greedy(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
        """The most likely continuation of each prompt, past any end token."""
        answers = []
        with progress("greedy text", len(prompts) * new_tokens, "tokens") as meter:
            for prompt in prompts:
                newest, cache, tokens = torch.tensor([list(prompt)]), None, []
                for _ in range(new_tokens):
                    out = self.model(newest, past_key_values=cache, use_cache=True)
                    cache = out.past_key_values
                    newest = out.logits[:, -1:].argmax(-1)
                    tokens.append(int(newest))
                    meter.advance()
                answers.append(tokens)
        return answers
