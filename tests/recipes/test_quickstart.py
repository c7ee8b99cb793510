# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The quickstart with a model trained for seconds."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from openllm.core.config import parse_overrides
from openllm.core.errors import ConfigError, StorageError
from openllm.core.runs import RECIPE, Run
from openllm.recipes import quickstart as q


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[q.Plan]:
    """The plans of the quickstarts that were called; nothing is measured or made."""
    plans: list[q.Plan] = []

    def make(minutes: float, seed: int) -> q.Plan:
        return q.Plan(tokens=2048, documents=12, seed=seed, minutes=minutes)

    monkeypatch.setattr(q.Plan, "make", make)
    monkeypatch.setattr(q, "quickstart", lambda out, plan: plans.append(plan))
    return plans


def finished(out: Path) -> None:
    """A small version of what a quickstart leaves in its folder."""
    run = Run.open(out / q.RECIPE, {"seed": 0})
    (run.checkpoints / "step-000001").mkdir(parents=True)
    run.close()
    for folder in ("data", "tokenizer", "evaluation"):
        (out / folder / "deep").mkdir(parents=True)
    for file in ("samples.md", "summary.json", "data/index.json", ".samples.md.12.tmp"):
        (out / file).touch()


def files(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*"))


@pytest.mark.integration
def test_all_stages_run_and_a_repeated_call_keeps_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(q, "NUM_SAMPLES", 4)
    plan = q.Plan(tokens=20_480, documents=800, seed=0)
    out = tmp_path / "q"
    q.quickstart(out, plan)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["tokens"] == plan.tokens
    assert 0 < summary["heldout_bpb"] < 8 and math.isfinite(summary["ngram_bpb"])
    assert 0 <= summary["consistency"] <= 1
    assert len(summary["samples"]) == 4
    assert (Path(summary["model"]) / "config.json").exists()
    assert "bits per byte" in capsys.readouterr().out
    weights = (Path(summary["model"]) / "model.safetensors").read_bytes()
    q.quickstart(out, plan)
    assert (Path(summary["model"]) / "model.safetensors").read_bytes() == weights


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="contains other files"):
        q.main(["--out", str(tmp_path)])
    assert [entry.name for entry in tmp_path.iterdir()] == ["precious.txt"]


def test_a_repeated_quickstart_keeps_its_plan(tmp_path: Path, planned: list[q.Plan]) -> None:
    out = ["--out", str(tmp_path / "q")]
    q.main([*out, "--minutes", "2", "--seed", "3"])
    q.main(out)
    q.main([*out, "--seed", "3"])
    (plan,) = set(planned)
    assert (plan.minutes, plan.seed) == (2.0, 3)


def test_other_settings_are_refused(tmp_path: Path, planned: list[q.Plan]) -> None:
    q.main(["--out", str(tmp_path)])
    with pytest.raises(
        ConfigError, match=r"\(--minutes was 4.0, is now 2.0; --seed was 0, is now 1"
    ):
        q.main(["--out", str(tmp_path), "--minutes", "2", "--seed", "1"])
    q.main(["--out", str(tmp_path), "--minutes", "2", "--seed", "1", "--fresh"])
    assert [(plan.minutes, plan.seed) for plan in planned] == [(4.0, 0), (2.0, 1)]


def test_a_plan_from_before_the_minutes_were_noted_is_taken_up(
    tmp_path: Path, planned: list[q.Plan]
) -> None:
    (tmp_path / q.PLAN).write_text('{"tokens": 4096, "documents": 24, "seed": 0}')
    q.main(["--out", str(tmp_path), "--minutes", "9"])
    assert planned[0].tokens == 4096


@pytest.mark.parametrize("fresh", [[], ["--fresh"]], ids=["resume", "fresh"])
@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "{", '{"plan": "of my thesis"}', '{"tokens": 0, "documents": 1, "seed": 0}'],
)
def test_a_plan_of_something_else_is_one_clear_error(
    text: str, fresh: list[str], tmp_path: Path, planned: list[q.Plan]
) -> None:
    (tmp_path / q.PLAN).write_text(text)
    (tmp_path / "data").mkdir()
    with pytest.raises(ConfigError, match=r"plan\.json .*remove the folder yourself") as caught:
        q.main(["--out", str(tmp_path), *fresh])
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == ["data", q.PLAN] and not planned


def test_fresh_discards_a_quickstart(tmp_path: Path, planned: list[q.Plan]) -> None:
    q.main(["--out", str(tmp_path)])
    finished(tmp_path)
    q.main(["--out", str(tmp_path), "--fresh"])
    assert files(tmp_path) == [q.PLAN]


@pytest.mark.parametrize("name", ["thesis.txt", ".git", "data2", f"{q.RECIPE}/../notes"])
def test_fresh_leaves_other_files_alone(name: str, tmp_path: Path, planned: list[q.Plan]) -> None:
    q.main(["--out", str(tmp_path)])
    finished(tmp_path)
    (tmp_path / name).write_text("years of work")
    before = files(tmp_path)
    with pytest.raises(
        ConfigError, match=f"contains {Path(name).name}, which is not from a quickstart"
    ):
        q.main(["--out", str(tmp_path), "--fresh"])
    assert files(tmp_path) == before
    q.main(["--out", str(tmp_path)])  # resuming does not endanger them


def test_fresh_waits_for_a_run_that_trains(tmp_path: Path, planned: list[q.Plan]) -> None:
    q.main(["--out", str(tmp_path)])
    finished(tmp_path)
    run = Run.open(tmp_path / q.RECIPE, {"seed": 0})
    before = files(tmp_path)
    with pytest.raises(StorageError, match="another process is training here"):
        q.main(["--out", str(tmp_path), "--fresh"])
    assert files(tmp_path) == before
    run.close()
    (tmp_path / q.RECIPE / RECIPE).unlink()
    with pytest.raises(ConfigError, match="not a run folder"):
        q.main(["--out", str(tmp_path), "--fresh"])


@pytest.mark.parametrize("name", ["a #2", "[x]", "{y", "it's 'so'", "c: d", "2026-11-22", " x"])
def test_folders_of_any_name_reach_the_recipe(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: dict[str, Any] = {}
    monkeypatch.setattr(q, "_stage", lambda verb, words, entry: stages.update({verb: words}))
    monkeypatch.setattr(q, "_evaluate", lambda *args: {})
    monkeypatch.setattr(q, "_tell", lambda *args: None)
    monkeypatch.chdir(tmp_path)
    os.mkdir(name)
    q.quickstart(Path(name), q.Plan(tokens=2048, documents=12, seed=1))
    settings = [word for word in stages["train"] if "=" in word]
    values = parse_overrides(settings)
    assert values["data"] == f"{name}/data" and values["tokenizer"] == f"{name}/tokenizer"
    assert values["seed"] == 1
