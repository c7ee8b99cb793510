# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What a decoder is told in one step, checked before anything is computed."""

# N outputs, r rank

from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
    rows, limit = len(step.tokens), step.tables.shape[-1] * step.k_cache.shape[3]
    adapters = () if step.adapters is None else (step.adapters.rows,)
    if any(x.shape != (rows,) for x in (step.positions, step.sequences, *adapters)):
        raise EngineError("tokens, positions and sequences of a step must be equally many")
    if step.tables.ndim != 2 or step.wanted.ndim != 1:
        raise EngineError("block tables must have two axes, wanted rows one")
    # lists, because most steps are so small that one call of an array library takes longer
    positions, owners = step.positions.tolist(), step.sequences.tolist()
    _check_range("token", step.tokens.tolist(), cfg.vocab_size)
    _check_range("position", positions, min(cfg.max_positions, limit))
    _check_range("sequence", owners, len(step.tables))
    _check_range("wanted row", step.wanted.tolist(), rows)
    if step.adapters is not None:
        _check_range("adapter", adapters[0].tolist(), len(step.adapters.adapters), low=-1)
    _check_blocks(step, cfg, _spans(positions, owners))
    return max(positions, default=-1)


def _check_cache(step: Step, cfg: ModelConfig) -> None:
    keys, values = step.k_cache, step.v_cache
    shape, heads, dim = keys.shape, cfg.attention.kv_heads, cfg.attention.head_dim
    if (
        len(shape) != 5
        or (shape[0], shape[2], shape[4]) != (cfg.num_layers, heads, dim)
        or shape[3] == 0
        or shape[3] % UNIT
        or values.shape != shape
    ):
        raise EngineError(
            f"the cache is {tuple(shape)}, not ({cfg.num_layers}, blocks, {heads}, a multiple of "
            f"{UNIT}, {dim})"
        )
    if keys.dtype not in (torch.float32, torch.bfloat16) or keys.dtype != values.dtype:
        raise EngineError("the cache must be float32 or bfloat16, keys and values alike")
    if not (keys.is_contiguous() and values.is_contiguous() and keys.device.type == "cpu"):
        raise EngineError("the cache must be contiguous and in the memory of the CPU")


def _check_range(what: str, numbers: list[int], limit: int, low: int = 0) -> None:
    for number in (min(numbers, default=low), max(numbers, default=low)):
        if numbers and not low <= number < limit:
            raise EngineError(f"{what} {number} in a decoder step: {low} ... {limit - 1} are valid")


def _spans(positions: list[int], owners: list[int]) -> dict[int, tuple[int, int]]:
    """First and last position of each sequence.

    Raises:
        EngineError: rows of a sequence are not neighbours, or positions not consecutive.
    """
    spans: dict[int, tuple[int, int]] = {}
    previous = -1
    for position, owner in zip(positions, owners, strict=True):
        if owner != previous and owner in spans:
            raise EngineError("the rows of a sequence must be neighbours in a step")
        first, last = spans.get(owner, (position, position - 1))
        if position != last + 1:
            raise EngineError("the rows of a sequence must have consecutive positions in a step")
        spans[owner] = first, position
        previous = owner
    return spans


def _check_blocks(step: Step, cfg: ModelConfig, spans: dict[int, tuple[int, int]]) -> None:
    """Check the blocks that the rows of each sequence write or see."""
    shape, size, count = cfg.attention, step.k_cache.shape[3], step.k_cache.shape[1]
    every = shape.window_layers is None or len(set(shape.window_layers)) == cfg.num_layers
    seen = shape.window if shape.window and every else cfg.max_positions
    tables = step.tables.tolist()
    for owner, (first, last) in spans.items():
        blocks = tables[owner][max(first - seen + 1, 0) // size : last // size + 1]
        if not 0 <= min(blocks) <= max(blocks) < count:
            raise EngineError(f"the blocks {blocks} in a decoder step: 0 ... {count - 1} are valid")
