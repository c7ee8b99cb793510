# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What the figures of benchmarks/ rest on: its arithmetic, and what it holds fixed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openllm.nn.cost import forward_flops

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a script of benchmarks/ were running."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def a_run(*bits: float, test: float = 2.0) -> dict[str, Any]:
    """Validated every 100 tokens."""
    curve = [[100 * number, float(number), value] for number, value in enumerate(bits, 1)]
    return {"curve": curve, "test_bpb": test, "tokens": curve[-1][0]}


def test_tokens_to_a_loss_lie_on_the_line_between_two_checks() -> None:
    from ablation.report import tokens_to

    curve = a_run(4.0, 3.0, 2.5)["curve"]
    assert tokens_to(4.0, curve) == 100
    assert tokens_to(3.25, curve) == 175
    assert tokens_to(2.5, curve) == 300
    assert tokens_to(2.4, curve) is None


def test_a_gap_has_the_interval_of_the_seeds() -> None:
    from ablation.report import gap, spread
    from ablation.rows import ROWS

    rows = {row.label: row for row in ROWS}
    results = {("tiny:recipe", seed): a_run(3, test=2 + seed / 10) for seed in range(3)}
    assert gap(results, rows["tiny:cosine"]) is None
    results["tiny:cosine", 0] = a_run(3, test=2.5)
    assert spread(results, "tiny") == (pytest.approx(0.1), 2)
    more, width = gap(results, rows["tiny:cosine"])
    assert more == pytest.approx(0.4)
    # Student's t for 2 degrees of freedom: 4.303
    assert width == pytest.approx(4.303 * 0.1 * (1 + 1 / 3) ** 0.5, rel=0.01)


def test_the_best_baseline_is_chosen_by_validation_and_not_by_test() -> None:
    from ablation.report import best_baseline, claim

    results = {
        ("tiny:baseline 0.001, 2,048 a step", 0): a_run(4, 3, 2.5, 2.0, test=9.0),
        ("tiny:baseline 0.002, 4,096 a step", 0): a_run(4, 3, 2.5, 2.1, test=1.0),
        ("tiny:recipe", 0): a_run(2.5, 1.5),
    }
    assert best_baseline(results, "tiny") == "tiny:baseline 0.001, 2,048 a step"
    words = claim(results, "tiny", {"ratio": 1.5})
    assert "after 38% of these tokens and 25% of the time" in words


def test_rows_have_names_of_their_own_and_what_they_are_compared_with() -> None:
    from ablation.rows import ROWS, digest

    labels = [row.label for row in ROWS]
    assert len(set(labels)) == len(labels)
    for row in ROWS:
        assert row.kind == "plain" or f"{row.size}:{row.against}" in labels
    runs = [digest(row, seed) for row in ROWS for seed in range(row.seeds)]
    assert len(set(runs)) == len(runs)


def test_the_limit_has_all_products_of_a_step_and_no_others() -> None:
    from contenders.job import Job
    from contenders.limit import products

    job = Job("small", 1000, 4, 512, "cpu", "fp32", 2)
    listed = sum(2 * p.M * p.K * p.N * p.batch * calls for _, p, calls in products(job))
    # the backward pass costs one forward pass for each of the two factors
    assert listed == 3 * forward_flops(job.recipe().model, [512] * 4)


def test_a_contender_on_documents_has_the_layout_of_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from contenders import documents
    from contenders.job import DOCUMENTS

    monkeypatch.setattr(documents.Shards, "open", lambda *_: None)
    made = ("PaddedLoader", "StreamLoader", "build_loader")
    for name in made:
        loader = SimpleNamespace(step=lambda _, name=name: name, batches=lambda *_, name=name: name)
        monkeypatch.setattr(documents, name, lambda *_, loader=loader: loader)
    job = SimpleNamespace(shards="", fingerprint="", recipe=lambda: None, rows=4)
    layouts = {"packed": "build_loader", "padded": "PaddedLoader", "stream": "StreamLoader"}
    for name in DOCUMENTS:
        assert documents.build(name, job)(0) == layouts[name.split("-")[1]]


def test_a_ratio_is_to_the_fastest_peer_of_each_round_and_to_one_peer() -> None:
    from train_speed import facts

    def contender(name: str, *rates: float, compiled: bool = False) -> Any:
        return SimpleNamespace(
            name=name,
            reason=None,
            rates=lambda: list(rates),
            turns=[{"seconds": [1.0]}],
            facts={
                "compiled": compiled,
                "parameters": 1,
                "build_seconds": 0.0,
                "first_step_seconds": 0.0,
            },
            peak_bytes=0,
        )

    outcomes = [
        contender("ours", 200, 100, 300),
        contender("plain", 100, 90, 100),
        contender("llama-compiled", 110, 50, 150, compiled=True),
        contender("gpt2", 10, 200, 10),  # lucky in one round
    ]
    found = facts(outcomes, {outcome.name: outcome.name for outcome in outcomes})
    ours = found["ours"]
    assert ours["over_fastest_peer"]["median"] == pytest.approx(1.8182, abs=1e-4)  # 200 / 110
    assert ours["over_fastest_peer_of_its_mode"]["median"] == 2.0
    one, alike = ours["over_one_fastest_peer"], ours["over_one_fastest_peer_of_its_mode"]
    assert one["peer"] == "llama-compiled" and one["median"] == 2.0  # 300 / 150
    assert alike["peer"] == "plain" and alike["median"] == 2.0
    assert found["gpt2"]["over_one_fastest_peer"]["median"] == pytest.approx(0.0909)
