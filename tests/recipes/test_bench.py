# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
from pathlib import Path
from typing import Any

import pytest

from openllm.cli.main import main
from openllm.evaluate import speed
from openllm.evaluate.speed import Decoding, Machine, Training
from openllm.recipes import bench, build
from openllm.recipes.bench import allot

LITTLE = """
model:
  vocab_size: 640
  dim: 64
  num_layers: 1
  max_positions: 64
  attention: {num_heads: 1, head_dim: 64}
  mlp: {kind: swiglu, hidden_dim: 64}
batch: {tokens: 128, seq_len: 64, micro_rows: 2}
duration: 1_000 tokens
optim: {kind: muon}
precision: fp32
"""
MACHINE = Machine("cpu", 2, 1, 2e11, None, 2e10, True, None, 0.0)


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shipped presets: `little`, and `wide`, which is twice as wide."""
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "little.yaml").write_text(LITTLE)
    wide = "base: little\nmodel: {dim: 128}\nduration: 2 epochs\n"
    (folder / "a-wide.yaml").write_text(wide)
    monkeypatch.setattr(build, "CONFIGS", folder)
    return folder


@pytest.fixture
def measured(presets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instant measurements."""
    monkeypatch.setattr(speed, "measure_machine", lambda device, seconds: MACHINE)
    monkeypatch.setattr(
        speed, "measure_training", lambda cfg, peak, s: Training(64.0, 128, 10**10, 10**9, peak)
    )
    monkeypatch.setattr(
        speed,
        "measure_decoding",
        lambda cfg, rate, s: Decoding(50.0, "bf16", 10**8, rate),
    )


def report_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["bench", "--device", "cpu", "--threads", "1", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.integration
def test_a_real_run(
    presets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "BUFFER_BYTES", 2**24)
    report = report_of(capsys, "--presets", "little", "--minutes", "0.01")
    machine, (preset,) = report["machine"], report["presets"]
    assert machine["fp32_flops"] > 1e8 and machine["memory_bytes_per_second"] > 1e7
    assert machine["threads"] == 1 and machine["device"] == "cpu"
    training, decoding = preset["training"], preset["decoding"]
    step = training["step_seconds"]
    assert step * training["tokens_per_second"] == pytest.approx(128)
    flops = training["step_flops"]
    assert training["share_of_peak"] == pytest.approx(flops / step / machine["fp32_flops"])
    assert training["recipe_seconds"] == pytest.approx(8 * step)  # 1,000 tokens
    limit = machine["memory_bytes_per_second"] / decoding["bytes_per_token"]
    assert decoding["limit_tokens_per_second"] == pytest.approx(limit)
    assert any(words.startswith("training `little`") for words in report["limits"])
    assert any(words.startswith("decoding `little`") for words in report["limits"])


def test_the_report_has_its_form(measured: None, capsys: pytest.CaptureFixture[str]) -> None:
    report = report_of(capsys)
    assert list(report) == [
        *("kind", "environment", "machine", "presets", "limits", "free_bytes", "seconds")
    ]
    assert report["kind"] == "bench"
    assert [preset["name"] for preset in report["presets"]] == ["little", "a-wide"]
    for preset in report["presets"]:
        assert preset["parameters"] > 0 and preset["peak_bytes"] > 0
        assert preset["vocab_size"] == 640 and preset["precision"] == "fp32"
        assert preset["training"]["tokens_per_second"] == 64
        assert preset["training"]["share_of_peak"] == pytest.approx(10**10 / 2 / 2e11)
        assert preset["decoding"]["share_of_limit"] == pytest.approx(50 / 200)
    little, wide = report["presets"]
    assert little["training"]["recipe_seconds"] == 16
    assert wide["training"]["recipe_seconds"] is None  # epochs of an unknown text


def test_people_read_a_table(measured: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--device", "cpu", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    for words in (
        "fp32 200 GFLOP/s, no instructions for bf16",
        "20.0 GB/s",
        "1,000 tokens in 16s",
        "2 epochs",
        "25% of 200",
        "- decoding `little` is limited by the work between the matrix products",
        "- training `a-wide` is limited by",
        "no bf16 instructions",
    ):
        assert words in out, words


def test_tiny_has_the_vocabulary_of_the_quickstart() -> None:
    shipped = bench.configs(None, "cpu", 1)
    assert list(shipped) == ["tiny", "small", "medium", "large"]
    assert shipped["tiny"].model.vocab_size == 2048
    assert shipped["small"].model.vocab_size == 32_000
    assert {cfg.threads for cfg in shipped.values()} == {1}


def test_what_does_not_fit_is_named(
    measured: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "free_bytes", lambda device: 1000)
    report = report_of(capsys, "--presets", "little")
    (preset,) = report["presets"]
    gib = preset["peak_bytes"] / 2**30
    reason = f"it needs about {gib:.1f} GiB of memory, but 0.0 GiB are free"
    assert preset["training"] == {"skipped": reason}
    assert "GiB of memory" in preset["decoding"]["skipped"]
    assert main(["bench", "--presets", "little", "--device", "cpu"]) == 0
    assert f"little    not measured: {reason}" in capsys.readouterr().out


@pytest.mark.integration
def test_a_lack_of_memory_costs_one_preset(
    measured: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Training:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(speed, "measure_training", fail)
    (preset,) = report_of(capsys, "--presets", "little")["presets"]
    assert preset["training"] == {"skipped": "it ran out of memory"}
    assert preset["decoding"]["tokens_per_second"] == 50


def test_what_takes_too_long_is_named_with_the_time_it_needs(
    measured: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flops = {64: (10**9, 0), 128: (10**14, 0)}
    monkeypatch.setattr(speed, "training_flops", lambda cfg: flops[cfg.model.dim])
    little, wide = report_of(capsys, "--minutes", "1")["presets"]
    assert little["training"]["tokens_per_second"] == 64
    reason = wide["training"]["skipped"]
    assert reason.startswith("a step of 128 tokens takes about 11m54s here")
    assert "openllm bench --presets a-wide --minutes 35" in reason


@pytest.mark.parametrize(
    ("steps", "seconds", "shares"),
    [
        ({"a": 1, "b": 2}, 10, {"a": 5, "b": 5}),
        ({"a": 1, "b": 6, "c": 100}, 12, {"a": 12}),
        ({"a": 1, "b": 3, "c": 100}, 12, {"a": 6, "b": 6}),
        ({"a": 7}, 12, {}),
        ({}, 12, {}),
    ],
)
def test_time_is_shared_by_those_that_can_use_it(
    steps: dict[str, float], seconds: float, shares: dict[str, float]
) -> None:
    assert allot(steps, seconds) == shares


@pytest.mark.integration
def test_the_report_is_kept(
    measured: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "bench.json"
    for _ in range(2):  # a report may be replaced
        report = report_of(capsys, "--out", str(out))
        kept = json.loads(out.read_text())
        assert kept.pop("format_version") == 1
        assert kept == report


def test_ctrl_c_leaves_nothing(
    measured: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> Training:
        raise KeyboardInterrupt

    monkeypatch.setattr(speed, "measure_training", interrupt)
    out = tmp_path / "bench.json"
    assert main(["bench", "--device", "cpu", "--json", "--out", str(out)]) == 130
    assert capsys.readouterr().out == "" and not out.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--presets", "smal"], "unknown preset 'smal'; presets: large, medium, small, tiny"),
        (["--presets", ""], "presets: large, medium, small, tiny"),
        (["--presets", "tiny,,small"], "presets: large, medium, small, tiny"),
        (["--minutes", "0"], "between 0 and 1440"),
        (["--minutes", "nan"], "--minutes nan must be between 0 and 1440"),
        (["--minutes", "-1"], "between 0 and 1440"),
        (["--minutes", "soon"], "invalid float value: 'soon'"),
        (["--threads", "0"], "--threads 0 must be between 1 and"),
        (["--threads", "1000000"], "the number of cores here"),
        (["--device", "tpu"], "choose from"),
        (["--out", "."], "is a folder; name a file"),
        (["small"], "unrecognized arguments: small"),
    ],
)
def test_mistakes_are_told(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    captured = capsys.readouterr()
    assert told in captured.err and captured.out == ""


def test_a_foreign_file_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("thesis.txt", "years of work"), ("other.json", '{"kind": "run"}')):
        (tmp_path / name).write_text(text)
        assert main(["bench", "--out", str(tmp_path / name)]) == 2
        assert name in capsys.readouterr().err
        assert (tmp_path / name).read_text() == text
    assert main(["bench", "--out", str(tmp_path / "thesis.txt" / "a.json")]) == 2
    assert "cannot write to" in capsys.readouterr().err
