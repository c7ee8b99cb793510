# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Serve an ONNX export with onnxruntime: its graph, our scheduler, sampler and structures."""

# T tokens, W wanted rows, V vocabulary

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openllm.core.errors import CheckpointError
from openllm.engine.backend import BackendInfo
from openllm.engine.backends.slot_backend import SlotBackend, choose_slots
from openllm.engine.config import EngineConfig
from openllm.engine.runners.slots import Piece
from openllm.export.onnx.runtime import OnnxModel
from openllm.export.onnx.writer import GRAPH
from openllm.text.chat import find_chat_template
from openllm.text.load import load_tokenizer


class OnnxSlots:
    """An ONNX export; a `SlotModel` that computes one text after another.

    Attributes:
        vocab_size, max_positions, num_bytes, token_bytes: see `SlotModel`.
    """

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        """Load the folder of an export.

        Args:
            folder: as `openllm export MODEL --to onnx` writes it.
            threads: none: one for each core.

        Raises:
            CheckpointError: it lacks a file, or is damaged.
            MissingExtra: onnxruntime is not installed.
        """
        self._model: OnnxModel | None = OnnxModel(folder, threads=threads)
        logits_BTV, _ = self._model.extend(self._model.start(), 0, [0])
        self.vocab_size = logits_BTV.shape[-1]
        if self._model.longest is None:
            raise CheckpointError(
                f"{folder / 'config.json'} does not say how long a text may be; copy the whole "
                "folder again"
            )
        self.max_positions = self._model.longest
        self.token_bytes = self._model.token_bytes
        self.num_bytes = onnx_bytes(folder)
        self._caches: list[list[Any]] = []
        self._lengths: list[int] = []

    def allocate(self, slots: int) -> None:
        """See `SlotModel.allocate`."""
        self._caches = [self._loaded().start() for _ in range(slots)]
        self._lengths = [0] * slots

    def copy(self, source: int, target: int, length: int) -> None:
        """See `SlotModel.copy`."""
        self._caches[target] = self._caches[source]  # never changed, only replaced
        self._lengths[target] = self._lengths[source]
        self._cut(target, length)

    def extend(self, pieces: Sequence[Piece]) -> NDArray[np.float32]:
        """See `SlotModel.extend`."""
        rows = [np.empty((0, self.vocab_size), np.float32)]
        for piece in pieces:
            self._cut(piece.slot, piece.start)
            cache, length = self._caches[piece.slot], self._lengths[piece.slot]
            logits_TV, cache = self._loaded().extend(cache, length, piece.tokens)
            self._caches[piece.slot] = cache
            self._lengths[piece.slot] = length + len(piece.tokens)
            rows.append(logits_TV[list(piece.wanted)])
        return np.concatenate(rows)

    def close(self) -> None:
        """See `SlotModel.close`."""
        self._model = None
        self._caches = []

    def _loaded(self) -> OnnxModel:
        assert self._model is not None, "it was closed"
        return self._model

    def _cut(self, slot: int, length: int) -> None:
        if length < self._lengths[slot]:
            self._caches[slot] = self._loaded().cut(self._caches[slot], length)
            self._lengths[slot] = length


def onnx_bytes(folder: Path) -> int:
    """Size of the graph and the weights beside it."""
    return sum(path.stat().st_size for path in folder.glob(f"{GRAPH}*"))


def onnx_backend(
    folder: Path,
    cfg: EngineConfig | None = None,
    *,
    name: str | None = None,
    threads: int | None = None,
) -> SlotBackend:
    """A backend that runs an ONNX export.

    Args:
        folder: as `openllm export MODEL --to onnx` writes it.
        cfg: how large the cache is, and how many texts are computed at a time.
        name: as requests call it; none: the folder's name.
        threads: none: one for each core.

    Raises:
        CheckpointError: it lacks a file, or is damaged.
        TokenizerError: its tokenizer is missing or damaged.
        TemplateError: its chat template is broken.
        ConfigError: the tokenizer is not the model's, or a setting is not for such a model.
        MissingExtra: onnxruntime is not installed.
    """
    tokenizer, template = load_tokenizer(folder), find_chat_template(folder)
    model = OnnxSlots(folder, threads=threads)
    cfg = cfg or EngineConfig()
    slots = choose_slots(cfg, model)
    info = BackendInfo(
        name or folder.name,
        "onnx",
        model.max_positions,
        num_bytes=model.num_bytes,
        cache_bytes=slots * model.max_positions * model.token_bytes,
    )
    return SlotBackend(model, tokenizer, template, info, cfg, slots=slots)
