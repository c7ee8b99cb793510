# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Export for PyTorch without our code: safetensors, and a traced program in an archive.

`model.pt2` runs wherever torch does: `torch.export.load("model.pt2").module()`. Its arguments are
those of `Decoder.forward`. An archive of this kind can run code when torch loads it: in pickled
objects, in expressions that are evaluated, in names of functions to call. Ours have none of these,
and `Pt2Model` looks before torch does.
"""

# B batch, T new tokens, S all tokens so far, V vocabulary

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from openllm.checkpoint.model_dir import load_model, read_model_config
from openllm.checkpoint.source import open_source
from openllm.core.log import say
from openllm.export.companions import copy_companions
from openllm.export.decoder import Decoder, Pair
from openllm.export.pt2.archive import check_archive

ARCHIVE = "model.pt2"


def export_pt2(source: Path, target: Path) -> None:
    """Write `model.pt2`, and the weights, configs and tokenizer as they are.

    Args:
        source: a model folder.
        target: an empty folder.

    Raises:
        CheckpointError: the model is missing or damaged.
    """
    decoder = Decoder(load_model(source), show_layers=True).eval()
    say(f"tracing {len(decoder.model.layers)} layers for torch.export; a few seconds for each")
    program = torch.export.export(
        decoder, decoder.example(), dynamic_shapes=decoder.dynamic_shapes()
    )
    program.example_inputs = None  # they would be pickled
    program._guards_code = []  # they would be evaluated; they only say what the arguments say
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names our folders
    torch.export.save(program, target / ARCHIVE)
    for path in open_source(source).weights.files:
        shutil.copyfile(path, target / path.name)
    copy_companions(source, target)


class Pt2Model:
    """A `Runtime` over the folder of a PyTorch export.

    Raises:
        CheckpointError: the archive is missing or damaged, or holds pickled objects.
    """

    name = "torch.export"
    version: str = torch.__version__

    def __init__(self, folder: Path | str) -> None:
        path = Path(folder) / ARCHIVE
        check_archive(path)
        self._step = torch.export.load(path).module()
        cfg = read_model_config(folder)
        self._layers = cfg.num_layers
        self._heads, self._head_dim = cfg.attention.kv_heads, cfg.attention.head_dim

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """(T, V): logits after each token of one text."""
        return self._read(ids)[0][0].numpy()

    def layers(self, ids: Sequence[int]) -> list[NDArray[np.float32]]:
        """The residual stream (T, D) after each layer."""
        return [stream[0].numpy() for stream in self._read(ids)[2]]

    @torch.inference_mode()
    def greedy(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
        """The most likely continuation of each prompt, with the cache, past any end token."""
        texts = []
        for prompt in prompts:
            made, newest, past = [], list(prompt), self._empty()
            for _ in range(new_tokens):
                scores, past = self._call(newest, len(prompt) + len(made), past)[:2]
                newest = [int(scores[0, -1].argmax())]
                made += newest
            texts.append(made)
        return texts

    @torch.inference_mode()
    def _read(self, ids: Sequence[int]) -> Any:
        return self._call(list(ids), len(ids), self._empty())

    def _empty(self) -> list[Pair]:
        shape = (1, self._heads, 0, self._head_dim)
        return [(torch.zeros(shape), torch.zeros(shape)) for _ in range(self._layers)]

    def _call(self, ids: list[int], total: int, past: list[Pair]) -> Any:
        places = torch.arange(total - len(ids), total)[None]
        return self._step(torch.tensor([ids]), torch.ones(1, total).long(), places, past)
