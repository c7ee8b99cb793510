# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import math

import numpy as np
import pytest
import torch
from tests.tiny import SHAPES, random_model

from openllm.evaluate.divergence import Divergence
from openllm.evaluate.sensitivity import sensitivity
from openllm.nn.heads import logits
from openllm.nn.quantized import Scheme
from openllm.train.scoring import score_documents
from openllm.transform.quantize import quantize, units

LLAMA, GEMMA = SHAPES["llama"], SHAPES["gemma2"]
LENGTHS = (30, 5, 60, 2, 41, 1)


def documents() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(4, 640, size) for size in LENGTHS]


def text(cfg_name: str = "llama", **options: int) -> Divergence:
    model = random_model(SHAPES[cfg_name]).eval()
    values = {"context": 100, "batch_tokens": 70, **options}
    return Divergence(model, documents(), [100] * len(LENGTHS), **values)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_bits_are_those_of_scoring(name: str) -> None:
    found = text(name)
    scores = score_documents(random_model(SHAPES[name]), documents(), context=100)
    nats = -sum(float(score.logprobs.sum()) for score in scores)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / 600, rel=1e-5)
    assert found.tokens == sum(LENGTHS) - len(LENGTHS)


def test_the_original_does_not_diverge_from_itself() -> None:
    change = text().of(random_model(LLAMA))
    assert change.added == 0 and abs(change.divergence) < 1e-9


def test_divergence_is_that_of_the_distributions() -> None:
    original, other = random_model(LLAMA).eval(), random_model(LLAMA).eval()
    with torch.no_grad():
        other.layers[1].mlp.up_proj.weight.mul_(1.2)
        wanted = 0.0
        for document in documents():
            ids = torch.from_numpy(document[:-1])[None]
            if ids.numel():
                p, q = (logits(m(ids).x[0], m.head).log_softmax(-1) for m in (original, other))
                wanted += float((p.exp() * (p - q)).sum()) / math.log(2) / 600
    change = text().of(other)
    assert change.divergence == pytest.approx(wanted, rel=1e-4) and wanted > 0
    assert change.added == pytest.approx(change.bits_per_byte - text().bits_per_byte)


def test_the_original_may_be_changed_afterwards() -> None:
    model = random_model(LLAMA).eval()
    found = Divergence(model, documents(), [100] * len(LENGTHS), context=100)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert found.of(random_model(LLAMA)).divergence == pytest.approx(0, abs=1e-9)


def test_long_documents_are_cut_with_their_bytes() -> None:
    found = text(context=20)
    assert found.tokens == 20 + 4 + 20 + 1 + 20
    assert found.bytes == pytest.approx(100 * (21 / 30 + 1 + 21 / 60 + 1 + 21 / 41 + 1))


def test_each_unit_is_tried_alone_and_put_back() -> None:
    model = random_model(LLAMA).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    schemes = {
        unit: {name: Scheme(8, 16) for name in names} for unit, names in units(before).items()
    }
    done: list[None] = []
    trials = sensitivity(model, schemes, text(), lambda: done.append(None))
    assert [(t.unit, t.bits) for t in trials] == [(u, b) for u in schemes for b in (8, 4)]
    assert len(done) == len(trials)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    by = {(trial.unit, trial.bits): trial.change.divergence for trial in trials}
    assert all(by[unit, 4] > 20 * by[unit, 8] > 0 for unit in schemes)
    with torch.no_grad():
        for name in schemes["1.down"]:
            model.get_parameter(name).copy_(quantize(before[name], Scheme(4, 16)).dequantize())
    assert text().of(model).divergence == pytest.approx(by["1.down", 4], rel=1e-6)
