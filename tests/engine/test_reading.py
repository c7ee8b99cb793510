# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Log-probabilities and vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engine.engines import finish, is_empty, make_engine, make_llm, network, plain_logits
from tests.tiny import sentences
from tests.tolerances import assert_close

from openllm.engine.request import Request, SamplingParams
from openllm.text.load import load_tokenizer
from openllm.text.tokenizer import Tokenizer
from openllm.train.scoring import score_documents

PROMPT = tuple(range(10, 30))


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_folder)


def test_log_probabilities_are_the_models_own(tokenizer: Tokenizer) -> None:
    llm = make_llm(tokenizer, "torch")
    params = SamplingParams(
        temperature=0.5, top_k=3, repetition_penalty=1.5, logprobs=4, seed=1, max_new_tokens=9
    )
    for one in llm.generate(["Anna found", "Boris"], params):
        assert one.logprobs is not None and len(one.logprobs) == len(one.token_ids)
        ids = [*one.prompt_token_ids, *one.token_ids]
        rows = plain_logits(network(), ids).log_softmax(1)[len(one.prompt_token_ids) - 1 :]
        for token, found, row in zip(one.token_ids, one.logprobs, rows, strict=False):
            assert found.token_id == token
            assert found.logprob == pytest.approx(float(row[token]), abs=1e-4)
            row[sorted(tokenizer.banned_ids)] = -torch.inf
            values, best = row.topk(4)
            assert list(found.top) == best.tolist()
            assert list(found.top.values()) == pytest.approx(values.tolist(), abs=1e-4)


@pytest.mark.parametrize("settings", [{}, {"max_batch_tokens": 8, "max_sequences": 2}])
def test_scores_are_those_of_training(tokenizer: Tokenizer, settings: dict[str, Any]) -> None:
    llm = make_llm(tokenizer, "torch", **settings)
    texts = ["Anna", *sentences(6, 3), ""]
    documents = [
        np.array([*tokenizer.prefix, *tokenizer.encode(text)][: llm.info.max_positions])
        for text in texts
    ]
    assert len(documents[-1]) == 1
    known = score_documents(network(), documents, context=llm.info.max_positions)
    found = llm.score([document.tolist() for document in documents], top=2)
    for document, scores, mine in zip(documents, known, found, strict=True):
        assert [one.token_id for one in mine] == document[1:].tolist()
        assert [one.logprob for one in mine] == pytest.approx(scores.logprobs.tolist(), abs=1e-4)
        assert [one.logprob == max(one.top.values()) for one in mine] == scores.is_argmax.tolist()
    assert all(not one.top for one in llm.score([PROMPT])[0])


def test_a_vector_is_the_mean_of_the_states(tokenizer: Tokenizer) -> None:
    llm = make_llm(tokenizer, "torch", max_batch_tokens=8, max_sequences=2)
    for prompt, found in zip([PROMPT, PROMPT[:1]], llm.embed([PROMPT, PROMPT[:1]]), strict=True):
        with torch.no_grad():
            mean = network()(torch.tensor([prompt])).x[0].mean(0)
        assert_close(torch.tensor(found), mean / mean.norm())


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
@pytest.mark.parametrize("kind", ["score", "embed"])
def test_a_reading_that_makes_place_counts_nothing_twice(
    tokenizer: Tokenizer, kind: Any, preemption: str
) -> None:
    """A text that grows takes the last block from a long prompt that is read in parts."""
    settings = {"cache_tokens": 64, "max_batch_tokens": 8, "max_sequences": 2}
    engine = make_engine(tokenizer, preemption=preemption, prefix_cache=False, **settings)
    reading = Request("reading", tuple(range(20, 53)), kind=kind, top=1)
    known = finish(engine, reading)[0]
    params = SamplingParams(temperature=0, max_new_tokens=30, ignore_eos=True)
    updates = finish(engine, Request("writing", PROMPT[:15], params), reading)
    assert engine.stats().preemptions == 1
    (found,) = [update for update in updates if update.id == "reading"]
    assert found.logprobs == known.logprobs
    assert found.vector == pytest.approx(known.vector, abs=1e-12)
    assert is_empty(engine)
