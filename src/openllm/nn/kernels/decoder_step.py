# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What a decoder is told in one step, checked before anything is computed."""

# R rows, S sequences, M blocks of a sequence, W wanted rows

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from openllm.core.errors import EngineError
from openllm.nn.config import ModelConfig
from openllm.nn.kernels.decoder_layout import TARGETS, AdditionLayout

UNIT = 16
"""Tokens whose keys lie together in the cache; block sizes are multiples."""


class Adapter:
    """Low-rank additions to some matrices: y += scale * B (A x) (arXiv:2106.09685).

    Args:
        cfg: of the model.
        factors: A (r, K), B (N, r) and the scale, by name of the matrix.
    """

    def __init__(self, cfg: ModelConfig, factors: Mapping[str, tuple[Tensor, Tensor, float]]):
        self.factors: dict[str, tuple[Tensor, Tensor, float]] = {}
        self.table = (AdditionLayout * (cfg.num_layers * len(TARGETS)))()
        places = {
            f"layers.{layer}.{target}.weight": layer * len(TARGETS) + number
            for layer in range(cfg.num_layers)
            for number, target in enumerate(TARGETS)
        }
        for name, (a_rK, b_Nr, scale) in factors.items():
            if name not in places:
                raise EngineError(f"an adapter cannot change '{name}', only matrices of layers")
            if a_rK.shape[0] != b_Nr.shape[1]:
                raise EngineError(f"the factors of '{name}' have different ranks")
            a, b = a_rK.detach().float().contiguous(), b_Nr.detach().float().T.contiguous()
            self.factors[name] = (a, b, scale)
            self.table[places[name]] = AdditionLayout(a.data_ptr(), b.data_ptr(), len(a), scale)


class RowAdapters(NamedTuple):
    """Adapters in use, and which of them each row has: its number, or -1."""

    adapters: Sequence[Adapter]
    rows: Tensor


class Step(NamedTuple):
    """The arguments of `Decoder.forward`; numbers are int32."""

    tokens: Tensor
    positions: Tensor
    sequences: Tensor
    tables: Tensor
    wanted: Tensor
    k_cache: Tensor
    v_cache: Tensor
    adapters: RowAdapters | None = None


def check_step(step: Step, cfg: ModelConfig) -> int:
    """Check a step; return its largest position, or -1 without rows.

    Raises:
        EngineError: an argument is out of range or of the wrong shape.
    """
    _check_cache(step, cfg)
    rows = len(step.tokens)
    adapters = () if step.adapters is None else (step.adapters.rows,)
    if any(x.shape != (rows,) for x in (step.positions, step.sequences, *adapters)):
        raise EngineError("tokens, positions and sequences of a step must be equally many")
    if step.tables.ndim != 2 or step.wanted.ndim != 1:
        raise EngineError("block tables must have two axes, wanted rows one")
    tokens, positions, owners, tables, wanted = (x.numpy() for x in step[:5])
    limit = min(cfg.max_positions, tables.shape[1] * step.k_cache.shape[3])
    _check_range("token", tokens, cfg.vocab_size)
    _check_range("position", positions, limit)
    _check_range("sequence", owners, len(tables))
    _check_range("wanted row", wanted, rows)
    if step.adapters is not None:
        _check_range("adapter", step.adapters.rows.numpy(), len(step.adapters.adapters), low=-1)
    if rows == 0:
        return -1
    new = np.flatnonzero(owners[1:] != owners[:-1]) + 1
    firsts, lasts = np.append(0, new), np.append(new, rows) - 1
    if len(np.unique(owners[firsts])) < len(firsts):
        raise EngineError("the rows of a sequence must be neighbours in a step")
    if (positions[lasts] - positions[firsts] != lasts - firsts).any() or (
        np.diff(positions) != 1
    ).sum() > len(new):
        raise EngineError("the rows of a sequence must have consecutive positions in a step")
    _check_blocks(step, cfg, firsts, lasts)
    return int(positions.max())


def _check_cache(step: Step, cfg: ModelConfig) -> None:
    caches = step.k_cache, step.v_cache
    shape, heads, dim = caches[0].shape, cfg.attention.kv_heads, cfg.attention.head_dim
    if (
        len(shape) != 5
        or (shape[0], shape[2], shape[4]) != (cfg.num_layers, heads, dim)
        or shape[3] == 0
        or shape[3] % UNIT
        or caches[1].shape != shape
    ):
        raise EngineError(
            f"the cache is {tuple(shape)}, not ({cfg.num_layers}, blocks, {heads}, a multiple of "
            f"{UNIT}, {dim})"
        )
    if {x.dtype for x in caches} not in ({torch.float32}, {torch.bfloat16}):
        raise EngineError("the cache must be float32 or bfloat16, keys and values alike")
    if not all(x.is_contiguous() and x.device.type == "cpu" for x in caches):
        raise EngineError("the cache must be contiguous and in the memory of the CPU")


def _check_range(what: str, numbers: np.ndarray, limit: int, low: int = 0) -> None:
    wrong = (numbers < low) | (numbers >= limit)
    if wrong.any():
        raise EngineError(
            f"{what} {numbers[wrong][0]} in a decoder step: must be in {low} ... {limit - 1}"
        )


def _check_blocks(step: Step, cfg: ModelConfig, firsts: np.ndarray, lasts: np.ndarray) -> None:
    """Check the blocks that the rows of each sequence write or see."""
    positions, size = step.positions.numpy(), step.k_cache.shape[3]
    windows = [cfg.attention.window_of(layer) for layer in range(cfg.num_layers)]
    seen = cfg.max_positions if None in windows else max(w for w in windows if w)
    low = np.maximum(positions[firsts] - seen + 1, 0) // size
    high = positions[lasts] // size
    tables = step.tables.numpy()[step.sequences.numpy()[firsts]]
    places = np.arange(tables.shape[1])
    used = (places >= low[:, None]) & (places <= high[:, None])
    wrong = used & ((tables < 0) | (tables >= step.k_cache.shape[1]))
    if wrong.any():
        raise EngineError(
            f"block {tables[wrong][0]} in a decoder step: there are {step.k_cache.shape[1]}"
        )
