# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from openllm.nn.heads import cross_entropy_sum
from openllm.nn.model import Transformer, build_model
from openllm.train import assemble, forecast
from openllm.train.config import PretrainConfig
from openllm.train.forecast import (
    Band,
    expected_band,
    optimizer_flops,
    out_of_memory,
    peak_bytes,
    training_bytes,
)
from openllm.train.optim import AdamWConfig, MuonConfig
from openllm.transform.memory import checkpoint_activations
from openllm.transform.precision import arithmetic

LIVE = 0.05
RESIDENT = 0.15
"""How far memory forecasts may be from measurements."""

ROOT = Path(__file__).resolve().parents[2]
MUON, ADAMW = {"kind": "muon"}, {"kind": "adamw"}
QWEN3 = {
    "vocab_size": 2000,
    "dim": 128,
    "num_layers": 4,
    "max_positions": 256,
    "attention": {"num_heads": 4, "head_dim": 32, "num_kv_heads": 2},
    "mlp": {"kind": "swiglu", "hidden_dim": 384},
}
GPT2 = QWEN3 | {
    "num_layers": 3,
    "tie_embeddings": False,
    "norm": {"kind": "layer"},
    "position": {"kind": "learned"},
    "attention": {"num_heads": 4, "head_dim": 32, "qk_norm": False, "bias": True},
    "mlp": {"kind": "gelu", "hidden_dim": 512},
}
CASES: dict[str, dict[str, Any]] = {
    "adamw": {"optim": ADAMW},
    "muon, half precision": {"optim": MUON, "precision": "bf16"},
    "muon, checkpointed": {"optim": MUON, "activation_checkpointing": True},
    "adamw, half precision, checkpointed": {
        "optim": ADAMW,
        "precision": "bf16",
        "activation_checkpointing": True,
    },
    "gpt2, untied": {"model": GPT2, "optim": ADAMW},
    "mostly vocabulary": {"model": QWEN3 | {"vocab_size": 12_000, "dim": 64, "num_layers": 1}},
    "mostly weights": {"batch": {"tokens": 64, "seq_len": 32, "micro_rows": 2}, "optim": MUON},
    "accumulated": {"batch": {"tokens": 2048, "seq_len": 128, "micro_rows": 2}},
    "averaged": {"ema": 0.99},
    "value embeddings": {"model": QWEN3 | {"research": {"value_embeddings": True}}},
}


def config(**changes: Any) -> PretrainConfig:
    batch = {"tokens": 512, "seq_len": 128, "micro_rows": 4}
    values = {"model": QWEN3, "batch": batch, "precision": "fp32", "device": "cpu", **changes}
    return PretrainConfig.parse(values, "test")


def step(model: Transformer, optimizers: list[Any], cfg: PretrainConfig) -> None:
    tokens = torch.zeros(cfg.batch.micro_rows, cfg.batch.seq_len, dtype=torch.long)
    for _ in range(min(2, cfg.batch.rows // cfg.batch.micro_rows)):
        with arithmetic("bf16" if cfg.precision == "bf16" else "fp32", "cpu"):
            states = model(tokens).x.flatten(0, 1)
            loss = cross_entropy_sum(states, model.head, tokens.flatten())
        loss.backward()
        del states, loss
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    model.zero_grad()


def profiled(cfg: PretrainConfig) -> int:
    """Peak of live bytes that torch's profiler sees in the second step."""
    model = build_model(cfg.model)
    if cfg.activation_checkpointing:
        checkpoint_activations(model)
    optimizers = cfg.optim.build(model)
    average = [p.detach().clone() for p in model.parameters()] if cfg.ema else []
    step(model, optimizers, cfg)
    kept = [*model.parameters(), *average]
    for optimizer in optimizers:
        kept += [tensor for state in optimizer.state.values() for tensor in state.values()]
    begin = sum(tensor.nbytes for tensor in kept)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(model, optimizers, cfg)
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    assert now == 0, "a step should leave nothing behind"
    return begin + peak


@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(CASES))
def test_tensor_bytes_are_those_of_the_profiler(name: str) -> None:
    cfg = config(**CASES[name])
    assert training_bytes(cfg) == pytest.approx(profiled(cfg), rel=LIVE)


def process(preset: str, vocab_size: int, steps: int, *settings: str) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.train.peak", preset, str(vocab_size), str(steps)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *settings], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_of_a_process_is_as_foretold() -> None:
    found = process("tiny", 4096, 4)
    assert found["foretold"] == pytest.approx(found["measured"], rel=RESIDENT)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "settings",
    [
        ["batch.tokens=4096"],
        ["batch.tokens=4096", "precision=fp32", "optim.kind=adamw"],
        ["batch.tokens=2048", "batch.micro_rows=1"],
        ["batch.tokens=4096", "activation_checkpointing=true"],
    ],
)
def test_peak_memory_of_the_preset_small_is_as_foretold(settings: list[str]) -> None:
    found = process("small", 32_000, 2, *settings)
    assert found["foretold"] == pytest.approx(found["measured"], rel=RESIDENT)


def test_muons_products_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch counts only its own products
    monkeypatch.setattr("openllm.nn.kernels.orthogonalize.has_dot_product", lambda: False)
    model = build_model(config().model)
    muon, _ = MuonConfig(ns_steps=3).build(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with FlopCounterMode(display=False) as counter:
        muon.step()
    assert optimizer_flops(model, MuonConfig(ns_steps=3)) == counter.get_total_flops()
    assert optimizer_flops(model, AdamWConfig()) == 0


@pytest.mark.integration
def test_out_of_memory_says_what_to_change_and_by_how_much() -> None:
    cfg = config(batch={"tokens": 4096, "seq_len": 256, "micro_rows": 16})
    told = str(out_of_memory(cfg))
    gib = peak_bytes(cfg) / 2**30
    assert f"this recipe needs about {gib:.1f} GiB" in told
    for advice in (
        "batch.micro_rows=8 (about",
        "activation_checkpointing=true (about",
        "batch.micro_rows=1 activation_checkpointing=true (about",
    ):
        assert advice in told
    smallest = config(
        batch={"tokens": 256, "seq_len": 256, "micro_rows": 1}, activation_checkpointing=True
    )
    assert "smaller model or shorter rows" in str(out_of_memory(smallest))


@pytest.mark.integration
def test_what_is_advised_needs_less() -> None:
    cfg = config(batch={"tokens": 2048, "seq_len": 128, "micro_rows": 16})
    fewer = cfg.model_copy(update={"batch": cfg.batch.model_copy(update={"micro_rows": 8})})
    twice = cfg.model_copy(update={"activation_checkpointing": True})
    assert training_bytes(fewer) < training_bytes(cfg)
    assert training_bytes(twice) < training_bytes(cfg)


def test_the_training_rate_is_that_of_the_recipe_on_its_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places, changed = [], []

    class Noting(Transformer):
        """Records where it is moved, and stays."""

        def to(self, device: Any) -> Any:
            places.append(device)
            return self

    monkeypatch.setattr(assemble, "build_model", lambda cfg, seed: Noting(cfg))
    for name in ("compile_blocks", "checkpoint_activations"):
        monkeypatch.setattr(assemble, name, lambda model, name=name: changed.append(name))
    batch = {"tokens": 64, "seq_len": 32, "micro_rows": 2}
    transformed = {"compile": True, "activation_checkpointing": True}
    cfg = config(device="mps", batch=batch, optim=ADAMW, **transformed)
    assert forecast.training_rate(cfg, document_tokens=20, seconds=0) > 0
    assert places == ["mps"]
    assert sorted(changed) == ["checkpoint_activations", "compile_blocks"]


CURVE = [[1e5, 3.0], [1e6, 2.0], [1e7, 1.5]]


def reference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *runs: dict[str, Any]) -> None:
    (tmp_path / "reference_runs.json").write_text(json.dumps({"runs": runs}))
    monkeypatch.setattr(forecast.resources, "files", lambda package: tmp_path)


def test_the_band_is_interpolated_by_the_logarithm_of_the_tokens() -> None:
    band = Band("reference", tuple((x, y) for x, y in CURVE))
    for tokens, middle in ((1e5, 3.0), (1e6, 2.0), (10**5.5, 2.5), (10**6.5, 1.75), (1e7, 1.5)):
        assert band.at(tokens) == pytest.approx((0.88 * middle, 1.12 * middle))
    assert band.at(9e4) is None and band.at(1.1e7) is None


def test_the_most_similar_reference_run_gives_the_band(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = [
        {"name": f"{corpus}-{size}", "corpus": corpus, "parameters": size, "curve": CURVE}
        for corpus in ("squad", "builtin")
        for size in (6_000_000, 9_000_000, 36_000_000)
    ]
    longer = {"corpus": "builtin", "parameters": 9_000_000, "curve": [*CURVE, [1e8, 1.2]]}
    reference(monkeypatch, tmp_path, *runs, {"name": "builtin-longer", **longer})
    assert expected_band("builtin", 8_000_000, 50_000_000).reference == "builtin-longer"
    assert expected_band("builtin", 8_000_000, 1_000_000).reference == "builtin-9000000"
    assert expected_band("squad", 30_000_000, 1_000_000).reference == "squad-36000000"
    assert expected_band("user", 8_000_000, 1_000_000) is None
    assert expected_band("squad", 100_000_000, 1_000_000) is None
    assert expected_band("squad", 8_000_000, 30_000_000) is None


@pytest.mark.integration
@pytest.mark.parametrize(("held_out", "seconds"), [(0, 200), (1024, 213.3), (10**9, 253.3)])
def test_validation_is_counted_as_far_as_there_is_text(
    monkeypatch: pytest.MonkeyPatch, held_out: int, seconds: float
) -> None:
    monkeypatch.setattr(forecast, "_probe_seconds", lambda trainer, batch: 2.0)
    monkeypatch.setattr(forecast, "matmul_peak", lambda precision, device: 1e12)
    rows = SimpleNamespace(tokens=np.zeros((4, 128)))
    trainer: Any = SimpleNamespace(
        batches=lambda step: [rows], total_steps=100, precision="fp32", device=None, model=None
    )
    cfg = config(optim=ADAMW, validation={"every": 10, "tokens": 4096})
    told = forecast.forecast(cfg, trainer, "user", held_out)
    assert told.seconds == pytest.approx(seconds, abs=0.1)


def test_shipped_reference_runs_are_well_formed() -> None:
    path = Path(forecast.__file__).parent / "reference_runs.json"
    runs = json.loads(path.read_text())["runs"]
    assert {run["corpus"] for run in runs} == {"builtin", "squad"}
    for run in runs:
        xs, ys = zip(*run["curve"], strict=True)
        assert len(xs) >= 2 and xs[0] > 0 and list(xs) == sorted(set(xs))
        assert all(0 < y < 20 for y in ys)
        assert run["parameters"] > 0 and run["corpus"] and run["name"]
