# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Decoding with a cache, in pieces or in batches, equals one full forward pass."""

import pytest
import torch
from tests.tiny import SHAPES, random_model
from tests.tolerances import assert_close

from openllm.nn.cache import KVCache
from openllm.nn.model import Transformer

LENGTH = 24


def example(name: str, rows: int = 2) -> tuple[Transformer, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, 600, (rows, LENGTH), generator=generator)
    return random_model(SHAPES[name]).eval(), tokens


@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize(
    "sizes", [[1] * LENGTH, [LENGTH], [10, *[1] * 14], [7, 5, 12], [1, 23], [23, 1]]
)
@torch.no_grad()
def test_cached_reading_is_a_full_forward_pass(name: str, sizes: list[int]) -> None:
    model, tokens = example(name)
    full = model(tokens).x
    cache = KVCache(model.cfg, 2, LENGTH)
    pieces = [model(piece, cache=cache).x for piece in tokens.split(sizes, dim=1)]
    assert cache.lengths == [LENGTH, LENGTH]
    assert_close(torch.cat(pieces, dim=1), full)


@pytest.mark.parametrize("name", sorted(SHAPES))
@torch.no_grad()
def test_rows_of_different_length_go_on_together_as_each_alone(name: str) -> None:
    model, tokens = example(name, rows=3)
    begun = [4, 13, 9]
    together = KVCache(model.cfg, 3, LENGTH)
    alone = []
    for row, length in enumerate(begun):
        single = KVCache(model.cfg, 1, LENGTH)
        model(tokens[row : row + 1, :length], cache=single)
        together.copy_row(single, 0, row)
        alone.append(single)
    for step in range(8):
        newest = torch.stack([tokens[row, n + step : n + step + 1] for row, n in enumerate(begun)])
        batch = model(newest, cache=together).x
        for row, single in enumerate(alone):
            assert_close(batch[row], model(newest[row : row + 1], cache=single).x[0])


@torch.no_grad()
def test_rows_can_be_dropped_on_the_way() -> None:
    model, tokens = example("qwen3", rows=3)
    full = model(tokens).x
    cache = KVCache(model.cfg, 3, LENGTH)
    model(tokens[:, :10], cache=cache)
    cache.keep_rows([2, 0])
    rest = model(tokens[[2, 0], 10:], cache=cache).x
    assert cache.lengths == [LENGTH, LENGTH]
    assert_close(rest, full[[2, 0], 10:])
