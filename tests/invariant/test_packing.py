# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Documents packed into rows are computed as if each stood alone."""

import numpy as np
import pytest
import torch
from tests.tiny import SHAPES, make_batch, random_model
from tests.tolerances import assert_close, assert_gradients_close

from openllm.data.loader import Batch
from openllm.nn.context import AttentionContext
from openllm.nn.model import Transformer
from openllm.train.objective import NextToken

LENGTHS = (5, 11, 1, 15, 16, 16, 2, 30)
"""Rows of 32 tokens: a row of many documents, one of two equal ones, one more."""
SEQ_LEN = 32


def documents(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(4, 600, length).tolist() for length in lengths]


def hidden(model: Transformer, batch: Batch) -> torch.Tensor:
    """States of all tokens, flattened."""
    return model(
        torch.from_numpy(batch.tokens),
        positions=torch.from_numpy(batch.positions),
        attn=AttentionContext(batch.cu_seqlens),
    ).x.flatten(0, 1)


def loss_and_gradients(
    model: Transformer, batches: list[Batch]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    total = torch.stack([NextToken().terms(model, batch)["loss"].sum for batch in batches]).sum()
    total.backward()
    return total.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_packed_documents_are_as_separate_ones(name: str) -> None:
    model = random_model(SHAPES[name])
    pieces = documents()
    packed = make_batch(pieces, SEQ_LEN)
    separate = [make_batch([piece], len(piece)) for piece in pieces]
    apart = torch.cat([hidden(model, batch) for batch in separate])
    assert_close(hidden(model, packed), apart, what="hidden states")
    loss, gradients = loss_and_gradients(model, [packed])
    loss_apart, gradients_apart = loss_and_gradients(model, separate)
    assert_close(loss, loss_apart, what="losses")
    assert_gradients_close(gradients, gradients_apart)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_nothing_crosses_the_border_of_a_document(name: str) -> None:
    model = random_model(SHAPES[name])
    pieces = documents()
    before = hidden(model, make_batch(pieces, SEQ_LEN))
    starts = np.cumsum([0, *LENGTHS])
    for changed in (0, 3, 4):
        other = [list(piece) for piece in pieces]
        other[changed][0] += 1
        after = hidden(model, make_batch(other, SEQ_LEN))
        inside = slice(starts[changed], starts[changed + 1])
        assert (before[inside] != after[inside]).any(1).all()
        rest = np.r_[0 : starts[changed], starts[changed + 1] : starts[-1]]
        assert torch.equal(before[rest], after[rest])


def test_no_gradient_crosses_the_border_of_a_document() -> None:
    model = random_model(SHAPES["qwen3"])
    batch = make_batch(documents(), SEQ_LEN)
    embeds = model.embed_tokens(torch.from_numpy(batch.tokens)).detach().requires_grad_()
    states = model(
        embeds=embeds,
        positions=torch.from_numpy(batch.positions),
        attn=AttentionContext(batch.cu_seqlens),
    ).x.flatten(0, 1)
    states[20].sum().backward()  # in the document of tokens 17 to 31
    touched = embeds.grad.flatten(0, 1).any(1).nonzero()[:, 0]
    assert touched.tolist() == [17, 18, 19, 20]


def test_positions_count_from_the_start_of_each_document() -> None:
    model = random_model(SHAPES["gpt2"])
    piece = documents((8,))[0]
    states = hidden(model, make_batch([piece] * 4, SEQ_LEN)).unflatten(0, (4, 8))
    for copy in range(1, 4):
        assert torch.equal(states[copy], states[0])


def test_equal_documents_take_the_same_way_as_unequal_ones() -> None:
    """Documents of equal length are one batch of attention; others are a loop."""
    model = random_model(SHAPES["qwen3"])
    pieces = documents((16,) * 4)
    together = hidden(model, make_batch(pieces, SEQ_LEN))
    mixed = hidden(model, make_batch([*pieces[:3], pieces[3][:7], pieces[3][7:]], SEQ_LEN))
    assert_close(mixed[:48], together[:48])


def test_half_precision_attention_keeps_documents_apart_too() -> None:
    model = random_model(SHAPES["qwen3"])
    pieces = documents()
    with torch.autocast("cpu", torch.bfloat16):
        packed = hidden(model, make_batch(pieces, SEQ_LEN))
        apart = torch.cat([hidden(model, make_batch([piece], len(piece))) for piece in pieces])
    assert_close(packed, apart, torch.bfloat16)
