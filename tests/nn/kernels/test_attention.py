# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The attention kernel against plain torch: values and gradients, over document lengths."""

from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tolerances import assert_close
from torch import Tensor

from openllm.nn.context import AttentionContext
from openllm.nn.kernels.attention import attention, attention_reference, has_kernel

HALF = torch.zeros(1, 1, 64, dtype=torch.bfloat16)
pytestmark = pytest.mark.skipif(
    not has_kernel(HALF, HALF, HALF), reason="no compiler, or no bfloat16 in this processor"
)


def inputs(tokens: int, heads: int, groups: int, dim: int, *, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(tokens + heads)
    return [
        (scale * torch.randn(tokens, count, dim, generator=generator)).bfloat16().requires_grad_()
        for count in (heads, groups, groups)
    ]


def marks(*borders: int) -> AttentionContext:
    return AttentionContext(borders)


def check(lengths: list[int], heads: int, groups: int, dim: int, *, scale: float = 1.0) -> None:
    borders = marks(*accumulate(lengths, initial=0))
    halves = inputs(sum(lengths), heads, groups, dim, scale=scale)
    wide = [x.detach().float().requires_grad_() for x in halves]
    actual = attention(*halves, borders)
    expected = attention_reference(*wide, borders)
    assert_close(actual, expected, torch.bfloat16)
    slope = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    ours = torch.autograd.grad(actual, halves, slope)
    theirs = torch.autograd.grad(expected, wide, slope.float())
    for name, mine, other in zip("qkv", ours, theirs, strict=True):
        if lengths != [1] * len(lengths) or name == "v":  # one token: scores have no gradient
            assert_close(mine, other, torch.bfloat16, f"gradient of {name}")


@pytest.mark.parametrize(
    ("heads", "groups", "dim"), [(1, 1, 32), (4, 4, 64), (8, 2, 64), (6, 3, 96), (2, 1, 256)]
)
def test_equals_plain_torch(heads: int, groups: int, dim: int) -> None:
    check([1, 2, 3, 15, 16, 17, 63, 64, 65, 128, 200], heads, groups, dim)


def test_one_long_document() -> None:
    check([1111], 2, 2, 64)


def test_single_tokens() -> None:
    check([1, 1, 1], 2, 2, 64)


def test_large_scores() -> None:
    """Scores in the hundreds, where exp() without the maximum would overflow."""
    check([130, 40], 2, 2, 64, scale=6.0)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=6),
    groups=st.integers(1, 3),
    shared=st.integers(1, 3),
    dim=st.sampled_from([32, 64, 128]),
)
def test_any_documents(lengths: list[int], groups: int, shared: int, dim: int) -> None:
    check(lengths, groups * shared, groups, dim)


def test_a_document_does_not_see_its_neighbours() -> None:
    q, k, v = (x.detach() for x in inputs(150, 4, 2, 64))
    alone = attention(q[40:110], k[40:110], v[40:110], marks(0, 70))
    assert attention(q, k, v, marks(0, 40, 110, 150))[40:110].equal(alone)


def test_later_tokens_are_not_seen() -> None:
    q, k, v = (x.detach() for x in inputs(100, 2, 2, 64))
    before = attention(q, k, v, marks(0, 100))
    k[77:], v[77:] = 9.0, 9.0
    assert attention(q, k, v, marks(0, 100))[:77].equal(before[:77])


def test_nan_stays() -> None:
    q, k, v = (x.detach() for x in inputs(100, 2, 2, 64))
    k[50, 1, 3] = float("nan")
    out = attention(q, k, v, marks(0, 100))
    assert out[50:, 1].isnan().all()
    assert out[:50].isfinite().all() and out[:, 0].isfinite().all()


def test_same_bits_with_any_number_of_threads() -> None:
    q, k, v = inputs(300, 4, 2, 64)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out = attention(q, k, v, marks(0, 120, 300))
            results.append([out, *torch.autograd.grad(out.float().square().sum(), (q, k, v))])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(a.equal(b) for a, b in zip(results[0], other, strict=True))


def test_float32_takes_plain_torch() -> None:
    x = torch.zeros(1, 1, 64)
    assert not has_kernel(x, x, x)
    odd = torch.zeros(1, 1, 48, dtype=torch.bfloat16)
    assert not has_kernel(odd, odd, odd)
