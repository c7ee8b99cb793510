# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A whole decoder in one call a step (decoder.cpp): tokens of many sequences, a paged cache.

A row (token) gives the same bits alone, beside other rows, and however its sequence is cut into
steps. Matrices are packed (`packed.py`); everything else is float32.
"""

# R rows, S sequences, M blocks of a sequence, W wanted rows, D model, V vocabulary

import ctypes
import threading
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from openllm.core.errors import EngineError
from openllm.nn.config import (
    GeGLUConfig,
    GeluConfig,
    LearnedPositionConfig,
    ModelConfig,
    ReluSquaredConfig,
    ResearchConfig,
    RopeConfig,
    SwiGLUConfig,
)
from openllm.nn.kernels.decoder_layout import StepLayout, model_layout
from openllm.nn.kernels.decoder_reference import decoder_reference
from openllm.nn.kernels.decoder_step import RowAdapters, Step, check_step
from openllm.nn.kernels.library import library
from openllm.nn.kernels.packed import Kind, PackedMatrix, pack, product
from openllm.nn.norm import LayerNormConfig, RMSNormConfig
from openllm.nn.rope import rotary_table
from openllm.nn.rope_scaling import LongRopeScaling

TABLE = 4096
"""Positions of the first rotary tables; longer ones follow when they are needed."""


def supports(cfg: ModelConfig) -> str | None:
    """Why a model cannot run here, or None if it can."""
    if cfg.research != ResearchConfig():
        return "research features run in PyTorch only"
    known = (
        (cfg.norm, (RMSNormConfig, LayerNormConfig)),
        (cfg.mlp, (SwiGLUConfig, GeGLUConfig, GeluConfig, ReluSquaredConfig)),
        (cfg.position, (RopeConfig, LearnedPositionConfig)),
    )
    for part, kinds in known:
        if type(part) not in kinds:
            return f"'{part.kind}' runs in PyTorch only"
    if isinstance(cfg.position, RopeConfig) and isinstance(cfg.position.scaling, LongRopeScaling):
        return "LongRoPE's angles depend on the longest position of a batch"
    return None


class Decoder:
    """A model with packed weights.

    Args:
        cfg: its shape.
        matrices: packed weights by name, as in `Transformer.state_dict()`.
        vectors: all other parameters by name.
    """

    def __init__(
        self, cfg: ModelConfig, matrices: Mapping[str, PackedMatrix], vectors: Mapping[str, Tensor]
    ) -> None:
        reason = supports(cfg)
        if reason is not None:
            raise EngineError(f"the compiled decoder cannot run this model: {reason}")
        self.cfg = cfg
        self.matrices = dict(matrices)
        self.vectors = {n: v.detach().float().contiguous() for n, v in vectors.items()}
        _check_names(cfg, {n: m.shape for n, m in matrices.items()}, self.vectors)
        if isinstance(cfg.norm, RMSNormConfig) and cfg.norm.unit_offset:
            for name in self.vectors:
                if name.endswith("norm.weight"):
                    self.vectors[name] = self.vectors[name] + 1
        self.embed_scale = cfg.embed_scale or 1.0
        if self.matrices["embed_tokens.weight"].kind != "fp32":
            # rounded to bf16, as the models that have one were trained (Gemma)
            self.embed_scale = float(torch.tensor(self.embed_scale).bfloat16())
        self.tables: list[tuple[Tensor, Tensor]] = []
        self._layout = model_layout(cfg, self.matrices, self.vectors, self.embed_scale)
        self._scratch, self._most_rows = torch.empty(0, dtype=torch.uint8), 0
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Memory of all weights."""
        vectors = sum(vector.nbytes for vector in self.vectors.values())
        return vectors + sum(matrix.num_bytes for matrix in self.matrices.values())

    @property
    def head(self) -> PackedMatrix:
        """The (V, D) output matrix."""
        name = "embed_tokens.weight" if self.cfg.tie_embeddings else "lm_head.weight"
        return self.matrices[name]

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        sequences: Tensor,
        tables: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        wanted: Tensor,
        adapters: RowAdapters | None = None,
        *,
        longest: int | None = None,
    ) -> Tensor:
        """Compute the final hidden states of the wanted rows, (W, D) in float32.

        Keys and values of the new tokens are written into the cache, then each row attends to all
        positions of its sequence up to its own. Within 16 tokens of a block the keys lie feature
        by feature, (head_dim, 16); blocks are otherwise opaque: copy them whole.

        Args:
            tokens: (R,) ids.
            positions: (R,) consecutive within a sequence.
            sequences: (R,) row of `tables` for each token; equal ones are neighbours.
            tables: (S, M) numbers of the blocks that hold the tokens of a sequence.
            k_cache: (num_layers, num_blocks, kv_heads, block_size, head_dim), float32 or bfloat16.
            v_cache: the same.
            wanted: (W,) rows whose hidden states are returned.
            adapters: low-rank additions of rows.
            longest: the largest position, if the caller has checked all arguments; numbers are then
                int32 and contiguous. The check takes some percent of a small model's step.

        Raises:
            EngineError: an argument is out of range; then nothing has been written.
        """
        numbers = (tokens, positions, sequences, tables, wanted)
        if longest is None:
            numbers = tuple(_int32(x) for x in numbers)
        if adapters is not None:
            adapters = RowAdapters(adapters.adapters, _int32(adapters.rows))
        step = Step(*numbers, k_cache, v_cache, adapters)
        if longest is None:
            longest = check_step(step, self.cfg)
        with self._lock:
            self._extend_tables(max(longest, 0))
            return decoder_reference(self, step) if library() is None else self._run(step)

    def logits(
        self,
        hidden_WD: Tensor,
        out: Tensor | None = None,
        best_W: NDArray[np.void] | None = None,
    ) -> Tensor:
        """(W, D) -> (W, V) in float32; `out` and `best_W` as in `product`."""
        return product(hidden_WD, self.head, self.cfg.logit_softcap, out, best_W)

    def _run(self, step: Step) -> Tensor:
        kernels = library()
        assert kernels is not None
        rows = len(step.tokens)
        if rows > self._most_rows:
            kernels.decoder_memory.restype = ctypes.c_int64
            size = kernels.decoder_memory(ctypes.byref(self._layout), ctypes.c_int64(rows))
            self._scratch, self._most_rows = torch.empty(64 + size, dtype=torch.uint8), rows
        out = torch.empty(len(step.wanted), self.cfg.dim)
        layout = _step_layout(step, out, -(-self._scratch.data_ptr() // 64) * 64)
        threads = ctypes.c_int(torch.get_num_threads())
        kernels.decoder_step(ctypes.byref(self._layout), ctypes.byref(layout), threads)
        return out

    def _extend_tables(self, position: int) -> None:
        """Compute rotary tables that reach beyond a position."""
        cfg = self.cfg
        have = len(self.tables[0][0]) if self.tables else 0
        if position < have or not isinstance(cfg.position, RopeConfig):
            return
        count = min(cfg.max_positions, max(TABLE, 2 * have, position + 1))
        places = torch.arange(count)[None]
        self.tables = [
            rotary_table(places, cfg.attention.head_dim, cfg.position, windowed=windowed)
            for windowed in (False, True)
        ]
        self.tables = [(cos.contiguous(), sin.contiguous()) for cos, sin in self.tables]
        for number, (cosines, sines) in enumerate(self.tables):
            self._layout.cosines[number] = cosines.data_ptr()
            self._layout.sines[number] = sines.data_ptr()


def pack_model(
    model: nn.Module | Iterable[tuple[str, Tensor]],
    cfg: ModelConfig,
    kind: Kind | Callable[[str], Kind],
) -> Decoder:
    """Pack a model tensor by tensor, so that weights read lazily never exist twice.

    Args:
        model: or its parameters with their names.
        cfg: its shape.
        kind: of all matrices, or of each by name.
    """
    matrices: dict[str, PackedMatrix] = {}
    vectors: dict[str, Tensor] = {}
    tensors = model.state_dict().items() if isinstance(model, nn.Module) else model
    for name, tensor in tensors:
        if tensor.ndim == 2 and name != "embed_positions.weight":
            matrices[name] = pack(tensor, kind(name) if callable(kind) else kind)
        else:
            vectors[name] = tensor
    return Decoder(cfg, matrices, vectors)


def _step_layout(step: Step, out: Tensor, scratch: int) -> StepLayout:
    k_cache = step.k_cache
    layout = StepLayout(
        len(step.tokens),
        *step.tables.shape,
        k_cache.shape[1],
        k_cache.shape[3],
        k_cache.dtype == torch.bfloat16,
        len(step.wanted),
        *(x.data_ptr() for x in (*step[:5], k_cache, step.v_cache, out)),
        scratch,
    )
    if step.adapters is not None:
        adapters = step.adapters.adapters
        pointers = (ctypes.c_void_p * len(adapters))(*(ctypes.addressof(a.table) for a in adapters))
        layout.kept = pointers
        layout.additions = ctypes.addressof(pointers)
        layout.adapters = step.adapters.rows.data_ptr()
        layout.num_adapters = len(adapters)
    return layout


def _int32(x: Tensor) -> Tensor:
    return x.to("cpu", torch.int32).contiguous()


def _check_names(
    cfg: ModelConfig, matrices: Mapping[str, tuple[int, int]], vectors: Mapping[str, Tensor]
) -> None:
    """Compare names and shapes with those of the model.

    Raises:
        EngineError: a parameter is missing, unknown or has another shape.
    """
    from openllm.nn.model import Transformer

    with torch.device("meta"):
        expected = {n: tuple(p.shape) for n, p in Transformer(cfg).state_dict().items()}
    found = dict(matrices) | {name: tuple(vector.shape) for name, vector in vectors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise EngineError(
                f"parameter '{name}' is {found.get(name, 'missing')}, but the model's is "
                f"{expected.get(name, 'unknown')}"
            )
