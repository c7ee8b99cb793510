# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
from collections import Counter
from typing import Any

import pytest
import torch
from tests.golden.record import CURVES, FILE, curve
from tests.tiny import SHAPES, random_model
from tests.tolerances import assert_close

from openllm.train.muon import Muon
from openllm.train.optim import AdamWConfig, MuonConfig, OptimConfig


@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize("optim", [AdamWConfig(), MuonConfig()])
def test_every_parameter_is_in_exactly_one_group(name: str, optim: OptimConfig) -> None:
    model = random_model(SHAPES[name])
    groups = [group for optimizer in optim.build(model) for group in optimizer.param_groups]
    counts = Counter(id(p) for group in groups for p in group["params"])
    assert counts == Counter(id(p) for p in model.parameters())


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_muon_has_the_matrices_of_the_blocks_and_nothing_else(name: str) -> None:
    model = random_model(SHAPES[name])
    muon, adamw = MuonConfig().build(model)
    names = {id(p): name for name, p in model.named_parameters()}
    taken = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert taken == {
        name for name, p in model.named_parameters() if name.startswith("layers.") and p.ndim == 2
    }
    decayed, plain = adamw.param_groups
    assert {names[id(p)] for p in decayed["params"]} == {
        name for name in names.values() if name.startswith(("embed_", "lm_head"))
    }
    assert all(p.ndim < 2 for p in plain["params"])


def test_gains_and_biases_do_not_decay() -> None:
    model = random_model(SHAPES["gpt2"])
    (optimizer,) = AdamWConfig(weight_decay=0.5).build(model)
    for group in optimizer.param_groups:
        matrices = {p.ndim >= 2 for p in group["params"]}
        assert len(matrices) == 1
        assert group["weight_decay"] == (0.5 if matrices.pop() else 0.0)


def test_muon_updates_are_orthogonal_and_sized_as_adamws() -> None:
    model = random_model(SHAPES["llama"])
    cfg = MuonConfig(lr=1.0, weight_decay=0.0, momentum=0.0)
    muon, _ = cfg.build(model)
    weight = model.layers[0].mlp.up_proj.weight
    before = weight.detach().clone()
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    muon.step()
    update = (before - weight).detach()
    # an orthogonal matrix of rank r scaled by 0.2 sqrt(max(shape)) (arXiv:2502.16982)
    spread = torch.linalg.svdvals(update) / (0.2 * max(weight.shape) ** 0.5)
    assert spread.min() > 0.6 and spread.max() < 1.3
    assert update.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.2)


@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(CURVES))
def test_loss_curves_are_as_recorded(name: str) -> None:
    """A change here changes every training run; if it is intended, run tests/golden/record.py."""
    recorded = json.loads(FILE.read_text())[name]
    found = curve(name)
    # other processors round differently, and twenty steps amplify that
    assert found == pytest.approx(recorded, rel=2e-3)
    assert found[-1] < found[0] - 0.5


def test_muon_stands_where_torchs_does() -> None:
    """Momentum, decay and scale are those of torch; its products are rounded."""
    ours, theirs = (
        torch.nn.Parameter(torch.randn(24, 40, generator=torch.Generator().manual_seed(1)))
        for _ in range(2)
    )
    settings: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.3}
    mine = Muon([ours], cautious=False, ns_steps=5, dtype=torch.float32, **settings)
    peer = torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", ns_steps=5, **settings)
    for step in range(4):
        slope = torch.randn(24, 40, generator=torch.Generator().manual_seed(10 + step))
        ours.grad, theirs.grad = slope, slope.clone()
        mine.step()
        peer.step()
        # torch's products are in bfloat16
        assert_close(ours, theirs, torch.bfloat16)


def test_cautious_decay_takes_weights_that_the_update_shrinks_alone() -> None:
    weight = torch.nn.Parameter(torch.ones(8, 8))
    plain = torch.nn.Parameter(torch.ones(8, 8))
    gradient = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {"momentum": 0.0, "ns_steps": 5, "dtype": torch.float32}
    for parameter, cautious, decay in ((weight, True, 0.5), (plain, False, 0.0)):
        parameter.grad = gradient.clone()
        Muon([parameter], lr=0.1, cautious=cautious, weight_decay=decay, **settings).step()
    shrunk = plain < 1
    assert shrunk.any() and not shrunk.all()
    assert torch.allclose((plain - weight)[shrunk], torch.tensor(0.05))
    assert torch.equal(weight[~shrunk], plain[~shrunk])
