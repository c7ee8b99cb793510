# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import SHAPES, random_model
from tests.tolerances import assert_close

from openllm.nn.heads import logits, token_logprobs
from openllm.nn.model import Transformer
from openllm.train import scoring
from openllm.train.scoring import Scores, _windows, score_documents


def documents(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(4, 600, length).astype(np.uint16) for length in lengths]


@torch.no_grad()
def plainly(model: Transformer, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of all tokens after the first, from one forward pass."""
    ids = torch.from_numpy(tokens.astype(np.int64))
    probs = logits(model(ids[None, :-1]).x[0], model.head).log_softmax(1)
    picked = probs.gather(1, ids[1:, None])[:, 0]
    return picked.numpy(), (probs.argmax(1) == ids[1:]).numpy()


def agree(found: Scores, expected: np.ndarray) -> None:
    assert_close(torch.from_numpy(found.logprobs), torch.from_numpy(expected))


@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize("batch_tokens", [1, 50, 8192])
def test_short_documents_are_scored_as_by_a_plain_forward_pass(
    name: str, batch_tokens: int
) -> None:
    model = random_model(SHAPES[name]).eval()
    docs = documents([2, 33, 7, 50, 7, 3])
    scores = score_documents(model, docs, context=50, batch_tokens=batch_tokens)
    for doc, found in zip(docs, scores, strict=True):
        expected, hits = plainly(model, doc)
        agree(found, expected)
        assert found.is_argmax.tolist() == hits.tolist()


def test_documents_of_one_token_or_none_have_no_scores() -> None:
    model = random_model(SHAPES["qwen3"]).eval()
    scores = score_documents(model, documents([1, 0, 5]), context=8)
    assert [len(s.logprobs) for s in scores] == [0, 0, 4]
    assert score_documents(model, [], context=8) == []


def test_windows_of_a_long_document_by_hand() -> None:
    # 11 tokens: 0 is given, 1 to 10 are scored; a window of 4 read tokens scores up to the 5th
    assert [window[1:] for window in _windows([11], context=4, stride=2)] == [
        (0, 1, 4),  # reads 0 1 2 3, scores 1 2 3 4
        (2, 5, 6),  # reads 2 3 4 5, scores 5 6
        (4, 7, 8),
        (6, 9, 10),
    ]
    assert [window[1:] for window in _windows([11], context=4, stride=4)] == [
        (0, 1, 4),
        (4, 5, 8),  # reads 4 5 6 7, scores 5 6 7 8
        (8, 9, 10),
    ]


@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 20))
def test_windows_score_each_token_once_and_with_enough_before_it(
    length: int, context: int, stride: int
) -> None:
    stride = min(stride, context)
    scored: list[int] = []
    for window in _windows([length], context, stride):
        assert 0 <= window.start < window.first <= window.end < length
        assert window.end - window.start <= context
        if window.start:
            assert window.first - window.start > context - stride
        scored += range(window.first, window.end + 1)
    assert scored == list(range(1, length))


@pytest.mark.parametrize("stride", [1, 5, 8, 16])
@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_long_documents_are_scored_window_by_window(name: str, stride: int) -> None:
    model = random_model(SHAPES[name]).eval()
    docs = documents([60, 17, 16, 40])
    scores = score_documents(model, docs, context=16, stride=stride, batch_tokens=40)
    for doc, found in zip(docs, scores, strict=True):
        expected = np.empty(len(doc) - 1, dtype=np.float32)
        first = 1
        for start in range(0, len(doc), stride):
            end = min(start + 16, len(doc) - 1)
            if first > end:
                continue
            values, _ = plainly(model, doc[start : end + 1])
            expected[first - 1 : end] = values[first - start - 1 :]
            first = end + 1
        agree(found, expected)


def test_scores_do_not_depend_on_order_or_company() -> None:
    model = random_model(SHAPES["qwen3"]).eval()
    docs = documents([40, 3, 17, 90, 22, 9])
    together = score_documents(model, docs, context=32, batch_tokens=100)
    order = [3, 0, 5, 1, 4, 2]
    shuffled = score_documents(model, [docs[i] for i in order], context=32, batch_tokens=100)
    for place, index in enumerate(order):
        agree(shuffled[place], together[index].logprobs)
    for doc, found in zip(docs, together, strict=True):
        (alone,) = score_documents(model, [doc], context=32)
        agree(alone, found.logprobs)


def test_half_precision_scores_are_close() -> None:
    model = random_model(SHAPES["qwen3"]).eval()
    docs = documents([30, 12])
    exact = score_documents(model, docs, context=32)
    for found, expected in zip(
        score_documents(model, docs, context=32, precision="bf16"), exact, strict=True
    ):
        assert_close(
            torch.from_numpy(found.logprobs), torch.from_numpy(expected.logprobs), torch.bfloat16
        )


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_kept_and_dropout_is_off(training: bool) -> None:
    model = random_model(SHAPES["qwen3"].model_copy(update={"dropout": 0.5})).train(training)
    first, second = (score_documents(model, documents([30]), context=32)[0] for _ in range(2))
    assert np.array_equal(first.logprobs, second.logprobs)
    assert model.training is training


class OnApple(torch.Tensor):
    """Like a tensor on Apple's GPU: float64 only works for the copy on the CPU."""

    def double(self) -> torch.Tensor:
        raise TypeError("MPS has no float64")

    def cpu(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


def test_scores_are_widened_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(SHAPES["qwen3"]).eval()
    docs = documents([30, 12])
    expected = score_documents(model, docs, context=32)

    def on_apple(*args: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logprobs, hits = token_logprobs(*args)
        return logprobs.as_subclass(OnApple), hits.as_subclass(OnApple)

    monkeypatch.setattr(scoring, "token_logprobs", on_apple)
    for found, scores in zip(score_documents(model, docs, context=32), expected, strict=True):
        assert found.logprobs.tolist() == scores.logprobs.tolist()


@pytest.mark.parametrize("stride", [33, -1])
def test_a_stride_beyond_the_context_is_an_error(stride: int) -> None:
    with pytest.raises(ValueError, match="stride"):
        score_documents(random_model(SHAPES["qwen3"]), [], context=32, stride=stride)
