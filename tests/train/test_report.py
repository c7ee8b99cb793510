# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
from pathlib import Path
from typing import Any

import pytest

from openllm.core.runs import Run
from openllm.train.report import smooth, write_plots, write_report

PNG = b"\x89PNG\r\n"


def test_smoothing_is_the_mean_of_the_latest() -> None:
    assert smooth([4.0, 2.0, 6.0, 8.0], 2) == [4.0, 3.0, 4.0, 7.0]
    assert smooth([], 5) == []


def run_with(
    folder: Path, losses: list[float], validations: dict[int, float] | None = None
) -> Path:
    run = Run.open(folder, {})
    run.rewind_metrics(0)
    for step, loss in enumerate(losses, 1):
        finite = loss == loss
        record: dict[str, Any] = {"kind": "train", "step": step, "tokens": 100 * step}
        record |= {"loss": loss, "terms": {"loss": loss}, "grad_norm": loss / 2}
        run.log_metrics(record | {"lr": 0.01, "applied": finite, "seconds": 0.5})
        if validations and step in validations:
            value = validations[step]
            record = {"kind": "validation", "step": step, "tokens": 100 * step}
            run.log_metrics(record | {"loss": value, "bits_per_byte": value / 2})
    run.close()
    return folder


def test_the_report_states_the_run(tmp_path: Path) -> None:
    losses = [5.0] * 10 + [3.0] * 20
    folder = run_with(tmp_path / "run", losses, {10: 4.0, 20: 3.5, 30: 3.75})
    path = write_report(folder, "A title", [("data", "stories")])
    text = path.read_text()
    assert text.startswith("# A title\n")
    for line in (
        "| data | stories |",
        "| steps | 30 |",
        "| tokens seen | 3,000 |",
        "| time in steps | 15s (200 tokens/s) |",
        "| training loss, last 20 steps | 3.0000 nats/token |",
        "| best validation | 1.7500 bits per byte, 3.5000 nats/token at step 20",
        "![loss](plots/loss.png)",
        "## Events\n\nnone",
    ):
        assert line in text
    for name in ("loss", "health"):
        assert (folder / "plots" / f"{name}.png").read_bytes().startswith(PNG)


def test_events_are_listed_but_for_checkpoints(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "run", [3.0])
    run = Run.open(folder, {})
    run.log_event("checkpoint", 1, "step-000001")
    run.log_event("gradients", 1, "the gradient norm is large")
    run.close()
    text = write_report(folder, "A title", []).read_text()
    assert "- step 1: the gradient norm is large" in text
    assert "step-000001" not in text


@pytest.mark.integration
@pytest.mark.parametrize("validations", [None, {1: float("nan")}, {3: float("inf"), 4: 2.0}])
def test_steps_without_a_number_do_not_spoil_the_report(
    validations: dict[int, float] | None, tmp_path: Path
) -> None:
    nan = float("nan")
    folder = run_with(tmp_path / "run", [nan, 4.0, nan, 2.0], validations)
    assert len(write_plots(folder)) == 2
    text = write_report(folder, "A title", []).read_text()
    assert "| training loss, last 20 steps | 3.0000 nats/token |" in text
    assert ("best validation" in text) == (validations is not None and 4 in validations)


def test_metrics_are_valid_json_whatever_happens(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "run", [float("nan"), 4.0], {1: float("inf")})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    lines = (folder / "metrics.jsonl").read_text().splitlines()
    first, check, _ = [json.loads(line, parse_constant=refuse) for line in lines]
    assert first["loss"] is None and first["terms"] == {"loss": None} and not first["applied"]
    assert check["loss"] is None


def test_a_run_that_only_failed_has_a_report_too(tmp_path: Path) -> None:
    nothing = run_with(tmp_path / "nothing", [])
    assert write_plots(nothing) == []
    assert "## Events" in write_report(nothing, "A title", []).read_text()
    bad = run_with(tmp_path / "bad", [float("nan")] * 3)
    assert write_plots(bad) == []
    assert "| steps | 3 |" in write_report(bad, "A title", []).read_text()


@pytest.mark.integration
def test_the_band_of_the_forecast_is_drawn(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "run", [4.0] * 30, {30: 4.0})
    without = write_plots(folder)[0].read_bytes()
    band = {"reference": "a run", "width": 0.12, "curve": [[100, 3.0], [10_000, 2.0]]}
    facts = {"bits_per_byte_per_nat": 0.5, "band": band}
    (folder / "forecast.json").write_text(json.dumps(facts))
    assert write_plots(folder)[0].read_bytes() != without
