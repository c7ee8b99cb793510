# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Matrices in half precision and in blocks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import SHAPES, random_model
from torch import nn

from openllm.export.onnx.packing import BLOCK, HalfLinear, HalfTable, from_blocks, pack, to_blocks


@given(
    bits=st.sampled_from((4, 8)),
    rows=st.integers(1, 5),
    columns=st.integers(1, 100),
    spread=st.sampled_from((0.0, 1e-4, 1.0, 1e3)),
    seed=st.integers(0, 99),
)
def test_a_weight_is_off_by_at_most_one_step_of_its_block(
    bits: int, rows: int, columns: int, spread: float, seed: int
) -> None:
    weight = spread * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    whole, scales = to_blocks(weight, bits)
    assert int(whole.max()) < 2**bits
    error = (from_blocks(whole, scales, bits, columns) - weight).abs()
    steps = scales.abs().repeat_interleave(BLOCK, 1)[:, :columns]
    # half a step by rounding; the largest of the other sign has no integer of its own
    assert (error <= steps * 1.0001).all()
    assert (error <= steps * 0.5001).float().mean() > 0.8 or columns < 20


def test_the_largest_weight_of_a_block_is_exact() -> None:
    weight = torch.tensor([[0.5, -2.0, 0.25, 1.0]])
    whole, scales = to_blocks(weight, 4)
    assert from_blocks(whole, scales, 4, 4)[0, 1] == -2.0


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_every_matrix_is_packed_once(name: str) -> None:
    model = random_model(SHAPES[name])
    before = {key: value for key, value in model.state_dict().items() if value.ndim == 2}
    pack(model, HalfLinear, HalfTable)
    kinds = {type(part) for part in model.modules()}
    assert not kinds & {nn.Linear, nn.Embedding}
    after = model.state_dict()
    for key, value in before.items():
        assert after[key].dtype == torch.float16
        assert torch.equal(after[key], value.half())
