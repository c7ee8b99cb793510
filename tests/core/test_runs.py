# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
import subprocess
import sys
from pathlib import Path

import pytest

from openllm.core.config import read_yaml
from openllm.core.errors import CheckpointError, ConfigError, StorageError
from openllm.core.runs import RECIPE, Run, environment, read_metrics

RECIPE_VALUES = {"seed": 0, "threads": 2, "model": {"dim": 8, "kinds": ["a", "b"]}}


def opened(folder: Path, **changes: object) -> Run:
    return Run.open(folder, {**RECIPE_VALUES, **changes})


def test_a_run_can_be_taken_up_with_the_same_settings(tmp_path: Path) -> None:
    for _ in range(2):
        opened(tmp_path / "run").close()
    assert (tmp_path / "run" / RECIPE).exists()


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path, seed=1, model={"dim": 16, "kinds": ["a", "b"]}, extra=True)
    told = str(caught.value)
    assert "seed was 0, is now 1" in told and "model.dim was 8, is now 16" in told
    assert "extra was None, is now True" in told and "kinds" not in told
    assert "--fresh" in told and "--out" in told
    opened(tmp_path).close()  # the refusal released the folder


FITTED = {"threads": 1, "activation_checkpointing": True, "batch": {"micro_rows": 2}}
"""Settings that fit a recipe to a machine."""


def test_settings_that_suit_the_machine_may_change(tmp_path: Path) -> None:
    first = opened(tmp_path, activation_checkpointing=False, batch={"micro_rows": 4, "tokens": 8})
    (first.checkpoints / "step-000001").mkdir(parents=True)
    first.close()
    before = (tmp_path / RECIPE).read_text()
    again = opened(tmp_path, **{**FITTED, "batch": {"micro_rows": 2, "tokens": 8}})
    again.close()
    assert first.changes == []
    assert sorted(again.changes) == [
        "activation_checkpointing was False, is now True",
        "batch.micro_rows was 4, is now 2",
        "threads was 2, is now 1",
    ]
    assert (tmp_path / RECIPE).read_text() == before
    with pytest.raises(ConfigError, match=r"\(batch.tokens was 8, is now 16\)"):
        opened(tmp_path, **{**FITTED, "batch": {"micro_rows": 2, "tokens": 16}})


def test_a_run_without_a_checkpoint_begins_with_what_suits_the_machine(tmp_path: Path) -> None:
    env = environment(
        instruction_set="AVX512", threads=2, device="cpu", kernels="none", compiled=False
    )
    first = opened(tmp_path, batch={"micro_rows": 4})
    assert first.check_env(env) == []
    first.close()
    again = opened(tmp_path, batch={"micro_rows": 2})
    assert again.changes == [] and again.check_env({**env, "torch": "9"}) == []
    again.close()
    assert read_yaml(tmp_path / RECIPE)["batch"] == {"micro_rows": 2}


def test_other_inputs_are_refused_by_name(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.check_inputs({"data": "a" * 64, "tokenizer": "b" * 64})
    run.check_inputs({"data": "a" * 64, "tokenizer": "b" * 64})
    with pytest.raises(ConfigError, match=r"\(data fingerprint was aaaaaaaaaaaa,") as caught:
        run.check_inputs({"data": "c" * 64, "tokenizer": "b" * 64})
    told = str(caught.value)
    assert "is now cccccccccccc" in told and "--fresh" in told and "--out" in told
    assert "tokenizer" not in told
    with pytest.raises(ConfigError, match="tokenizer fingerprint was bbbbbbbbbbbb,"):
        run.check_inputs({"data": "a" * 64, "tokenizer": "c" * 64})
    (tmp_path / "inputs.json").write_text("[]")
    with pytest.raises(CheckpointError, match="--fresh"):
        run.check_inputs({"data": "a" * 64, "tokenizer": "b" * 64})
    run.close()


def test_fresh_discards_the_run_and_nothing_else(tmp_path: Path) -> None:
    run = opened(tmp_path / "run")
    run.rewind_metrics(0)
    run.log_metrics({"kind": "train"})
    (run.checkpoints / "step-000001").mkdir(parents=True)
    run.close()
    fresh = Run.open(tmp_path / "run", {**RECIPE_VALUES, "seed": 5}, fresh=True)
    assert not fresh.metrics_path.exists() and not fresh.checkpoints.exists()
    fresh.close()
    opened(tmp_path / "run", seed=5).close()


def test_a_run_is_discarded_whole_and_nothing_else_is(tmp_path: Path) -> None:
    Run.discard(tmp_path / "none")
    run = opened(tmp_path / "run")
    with pytest.raises(StorageError, match="another process"):
        Run.discard(run.folder)
    assert (run.folder / RECIPE).exists()
    run.close()
    Run.discard(run.folder)
    assert not run.folder.exists()
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"other files \(thesis.txt\)"):
        Run.discard(tmp_path)


@pytest.mark.parametrize("fresh", [True, False])
def test_a_folder_with_other_files_is_left_alone(fresh: bool, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"other files \(thesis.txt\)"):
        Run.open(tmp_path, RECIPE_VALUES, fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_only_one_process_may_hold_a_run(tmp_path: Path) -> None:
    run = opened(tmp_path)
    code = (
        "import sys; from openllm.core.runs import Run; from openllm.core.errors import *\n"
        f"try: Run.open(sys.argv[1], {RECIPE_VALUES!r})\n"
        "except StorageError as error: print(error)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    ).stdout
    assert "another process is training here" in told
    with pytest.raises(StorageError, match="another process"):
        opened(tmp_path)
    run.close()
    opened(tmp_path).close()


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(StorageError, match="choose another folder"):
        opened(tmp_path / "run")


def test_a_broken_recipe_is_one_clear_error(tmp_path: Path) -> None:
    opened(tmp_path).close()
    (tmp_path / RECIPE).write_text("seed: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        opened(tmp_path)


def test_a_kill_before_the_recipe_was_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / f".{RECIPE}.123.tmp").write_text("see")
    (tmp_path / ".lock").touch()
    opened(tmp_path).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", RECIPE]


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.rewind_metrics(0)
    for step in (1, 2):
        run.log_metrics({"step": step})
    offset = run.metrics_offset()
    run.log_metrics({"step": 3})
    run.close()
    with open(run.metrics_path, "a") as handle:
        handle.write('{"step": 4, "lo')  # a partial line
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    again = opened(tmp_path)
    again.rewind_metrics(offset)
    again.log_metrics({"step": 3})
    again.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]


def test_metrics_that_lost_lines_are_an_error(tmp_path: Path) -> None:
    run = opened(tmp_path)
    with pytest.raises(CheckpointError, match="--fresh"):
        run.rewind_metrics(10)
    run.close()


def test_a_folder_without_metrics_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a run folder"):
        read_metrics(tmp_path)


def test_a_torn_event_does_not_spoil_the_others(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.log_event("checkpoint", 1, "step-000001")
    run.close()
    with open(run.events_path, "a") as handle:
        handle.write('{"time": 17')
    again = opened(tmp_path)
    again.log_event("resume", 1, "resumed")
    again.close()
    lines = [json.loads(line) for line in run.events_path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["checkpoint", "resume"]


def test_another_machine_is_named(tmp_path: Path) -> None:
    run = opened(tmp_path)
    env = environment(
        instruction_set="AVX512", threads=2, device="cpu", kernels="none", compiled=False
    )
    assert run.check_env(env) == []
    assert run.check_env(env) == []
    assert run.check_env({**env, "torch": "9", "cpu": "another"}) == [
        f"torch was {env['torch']}, is now 9"
    ]
    told = run.check_env({**env, "torch": "9", "instruction_set": "AVX2", "kernels": "other"})
    assert len(told) == 3 and "instruction_set was AVX512, is now AVX2" in told
    run.close()
    assert json.loads((tmp_path / "env.json").read_text())["threads"] == 2
