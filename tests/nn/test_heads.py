# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

from typing import Any

import pytest
import torch
from tests.tolerances import assert_close
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from openllm.nn import heads
from openllm.nn.heads import (
    IGNORE,
    Head,
    cross_entropy_sum,
    distillation_sum,
    logits,
    token_logprobs,
)


def example(
    rows: int = 13, dim: int = 8, vocab: int = 31, ignored: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    """States, weights, targets; logits have a standard deviation of about 3."""
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(rows, dim, generator=generator) / dim**0.5
    weight = torch.randn(vocab, dim, generator=generator)
    targets = torch.randint(vocab, (rows,), generator=generator)
    targets[torch.randperm(rows, generator=generator)[:ignored]] = IGNORE
    return x.requires_grad_(), weight.requires_grad_(), targets


def both_ways(
    x: Tensor, weight: Tensor, targets: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Loss and gradients: ours, and those of torch."""
    ours = cross_entropy_sum(x, Head(weight), targets)
    ours_grads = torch.autograd.grad(2.5 * ours, (x, weight))
    theirs = F.cross_entropy(x @ weight.T, targets, ignore_index=IGNORE, reduction="sum")
    theirs_grads = torch.autograd.grad(2.5 * theirs, (x, weight))
    return (ours, *ours_grads), (theirs, *theirs_grads)


@pytest.mark.parametrize("chunk_rows", [1, 2, 5, 12, 13, 14, 1000])
def test_cross_entropy_is_torchs_at_any_chunk_size(
    chunk_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, targets = example()
    monkeypatch.setattr(heads, "CHUNK_UNIT", 1)
    monkeypatch.setattr(heads, "CHUNK_LOGITS", chunk_rows * weight.shape[0])
    for ours, theirs in zip(*both_ways(x, weight, targets), strict=True):
        assert_close(ours, theirs)


def test_cross_entropy_survives_enormous_logits() -> None:
    x, weight, targets = example()
    for ours, theirs in zip(
        *both_ways(x.detach().mul(100).requires_grad_(), weight, targets), strict=True
    ):
        assert torch.isfinite(ours).all()
        assert_close(ours, theirs)


def test_cross_entropy_of_nothing_is_zero() -> None:
    x, weight, targets = example(ignored=13)
    loss = cross_entropy_sum(x, Head(weight), targets)
    loss.backward()
    assert loss.item() == 0
    assert not x.grad.any() and not weight.grad.any()


def test_ignored_rows_get_no_gradient() -> None:
    x, weight, targets = example(ignored=5)
    cross_entropy_sum(x, Head(weight), targets).backward()
    assert not x.grad[targets == IGNORE].any()
    assert (x.grad[targets != IGNORE].abs().sum(1) > 0).all()


def test_cross_entropy_under_autocast_is_close_to_float32() -> None:
    x, weight, targets = example(rows=64, dim=32, vocab=97)
    exact = both_ways(x, weight, targets)[1]
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy_sum(x, Head(weight), targets)
    assert loss.dtype == torch.float32
    grads = torch.autograd.grad(2.5 * loss, (x, weight))
    for ours, theirs in zip((loss, *grads), exact, strict=True):
        assert ours.dtype == theirs.dtype
        assert_close(ours, theirs, torch.bfloat16)


def test_cross_entropy_of_bfloat16_states_gives_bfloat16_gradients() -> None:
    x, weight, targets = example(rows=64, dim=32, vocab=97)
    exact = both_ways(x, weight, targets)[1]
    half = x.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy_sum(half, Head(weight), targets)
    grad_x, grad_weight = torch.autograd.grad(2.5 * loss, (half, weight))
    assert grad_x.dtype == torch.bfloat16
    assert_close(grad_x, exact[1], torch.bfloat16)
    assert_close(grad_weight, exact[2], torch.bfloat16)


@pytest.mark.parametrize("chunk_rows", [1, 5, 1000])
@pytest.mark.parametrize("cached_rows", [2, 1000])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_distillation_is_cross_entropy_to_the_mixture(
    chunk_rows: int, cached_rows: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, targets = example()
    vocab = len(weight)
    monkeypatch.setattr(heads, "CHUNK_UNIT", 1)
    monkeypatch.setattr(heads, "CHUNK_LOGITS", chunk_rows * vocab)
    monkeypatch.setattr(heads, "CACHED_LOGITS", cached_rows * vocab)
    generator = torch.Generator().manual_seed(1)
    teachers = [
        (
            torch.randn(len(x), dim, generator=generator),
            Head(torch.randn(vocab, dim, generator=generator)),
        )
        for dim in (4, 6)
    ]
    ours = distillation_sum(x, Head(weight), targets, teachers, share)
    ours_grads = torch.autograd.grad(2.5 * ours, (x, weight))
    kept = targets != IGNORE
    taught = torch.stack([(h @ head.weight.T).softmax(1) for h, head in teachers]).mean(0)[kept]
    wanted = share * taught + (1 - share) * F.one_hot(targets[kept], vocab)
    theirs = F.cross_entropy((x @ weight.T)[kept], wanted, reduction="sum")
    theirs_grads = torch.autograd.grad(2.5 * theirs, (x, weight))
    for mine, other in zip((ours, *ours_grads), (theirs, *theirs_grads), strict=True):
        assert_close(mine, other)


def test_a_student_that_equals_its_teacher_has_nothing_to_learn() -> None:
    x, weight, targets = example()
    distillation_sum(
        x, Head(weight), targets, [(x.detach(), Head(weight.detach()))], 1.0
    ).backward()
    assert x.grad.abs().max() < 1e-5 and weight.grad.abs().max() < 1e-5


@pytest.mark.parametrize("chunk_rows", [1, 4, 1000])
def test_token_logprobs_are_log_softmax(chunk_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, targets = example(ignored=0)
    monkeypatch.setattr(heads, "CHUNK_UNIT", 1)
    monkeypatch.setattr(heads, "CHUNK_LOGITS", chunk_rows * weight.shape[0])
    targets[3] = (x @ weight.T)[3].argmax()
    values, hits = token_logprobs(x, Head(weight), targets)
    expected = (x @ weight.T).log_softmax(1)
    assert_close(values, expected.gather(1, targets[:, None])[:, 0])
    assert hits.tolist() == (expected.argmax(1) == targets).tolist()
    assert hits[3]


class DtypesSeen(TorchDispatchMode):
    """Records the dtypes of the tensors that operations create."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen |= {leaf.dtype for leaf in tree_leaves(out) if isinstance(leaf, Tensor)}
        return out


def test_losses_are_summed_without_float64_where_a_device_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    types = {name: heads.sum_dtype(torch.device(name)) for name in ("cpu", "cuda", "mps")}
    assert types == {"cpu": torch.float64, "cuda": torch.float64, "mps": torch.float32}
    monkeypatch.setattr(heads, "sum_dtype", lambda device: types["mps"])
    x, weight, targets = example()
    with DtypesSeen() as dtypes:
        results = both_ways(x, weight, targets)
    assert torch.float64 not in dtypes.seen and torch.float32 in dtypes.seen
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs)


def test_logits_are_float32_under_autocast() -> None:
    x, weight, _ = example()
    with torch.autocast("cpu", torch.bfloat16):
        scores = logits(x, Head(weight))
    assert scores.dtype == torch.float32
    assert_close(scores, x @ weight.T, torch.bfloat16)


def test_a_cap_of_the_logits_is_that_of_plain_autograd() -> None:
    x, weight, targets = example()
    cap = 2.0
    ours = cross_entropy_sum(x, Head(weight, cap), targets)
    ours_grads = torch.autograd.grad(ours, (x, weight))
    capped = cap * torch.tanh(x @ weight.T / cap)
    theirs = F.cross_entropy(capped, targets, ignore_index=IGNORE, reduction="sum")
    assert_close(ours, theirs)
    for mine, other in zip(ours_grads, torch.autograd.grad(theirs, (x, weight)), strict=True):
        assert_close(mine, other)
    assert_close(logits(x, Head(weight, cap)), capped)
    assert not torch.allclose(capped, x @ weight.T, atol=0.1), "the cap does nothing here"
