# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Whatever stops a run, repeating its command gives an uninterrupted run's result, bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.command import Command, saving, steps_done
from tests.tiny import settings

from openllm.core.runs import read_metrics

STEPS = 24


def outcome(run: Path) -> dict[str, Any]:
    """What must be equal: metrics without times, weights, optimizer, average, lineage."""
    last = max((run / "checkpoints").glob("step-*"))
    assert last.name == f"step-{STEPS:06d}"
    metrics = [
        {key: value for key, value in line.items() if key != "seconds"}
        for line in read_metrics(run)
    ]
    assert [line["step"] for line in metrics if line["kind"] == "train"] == [*range(1, STEPS + 1)]
    state = json.loads((last / "state.json").read_text())
    del state["metrics_offset"]  # times make the lines vary in length
    files = [*last.glob("*.safetensors"), run / "model" / "model.safetensors"]
    tensors = {path.name: path.read_bytes() for path in files}
    assert len(tensors) == 4
    lineage = json.loads((run / "model" / "openllm.json").read_text())
    del lineage["commit"]  # the working tree may change meanwhile
    return {"metrics": metrics, "state": state, "lineage": lineage, **tensors}


class Workshop:
    """A folder for runs of one recipe."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        self.folder = folder
        self.arguments = list(arguments)
        self._commands: list[Command] = []

    def start(self, run: Path, *changes: str, **limits: int) -> Command:
        log = self.folder / f"log-{len(self._commands)}.txt"
        argv = ["train", "tiny", *self.arguments, *changes, "--out", str(run)]
        command = Command(argv, log, **limits)
        self._commands.append(command)
        return command

    def finish(self, run: Path, *changes: str) -> str:
        command = self.start(run, *changes)
        assert command.code() == 0, command.said()
        return command.said()

    def close(self) -> None:
        for command in self._commands:
            command.process.kill()


@pytest.fixture(scope="module")
def workshop(
    tmp_path_factory: pytest.TempPathFactory, prepared: Path, tokenizer_folder: Path
) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("exactness")
    shutil.copytree(prepared, folder / "data", ignore=shutil.ignore_patterns("tokens-*"))
    arguments = settings(
        folder / "data",
        tokenizer_folder,
        duration=f"{STEPS} steps",
        model__dropout=0.1,
        ema=0.9,
        checkpoint__keep=3,
    )
    workshop = Workshop(folder, arguments)
    yield workshop
    workshop.close()


@pytest.fixture(scope="module")
def straight(workshop: Workshop) -> Path:
    """A run that nothing interrupted."""
    workshop.finish(workshop.folder / "straight")
    return workshop.folder / "straight"


@pytest.fixture
def copied(straight: Path, tmp_path: Path) -> Path:
    """A copy of the uninterrupted run."""
    return shutil.copytree(straight, tmp_path / straight.name)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.integration
def test_two_runs_with_one_seed_are_equal_and_others_are_not(
    workshop: Workshop, straight: Path, tmp_path: Path
) -> None:
    workshop.finish(tmp_path / straight.name)
    assert outcome(tmp_path / straight.name) == outcome(straight)
    workshop.finish(tmp_path / "other", "seed=1")
    assert outcome(tmp_path / "other")["metrics"] != outcome(straight)["metrics"]


@pytest.mark.integration
def test_a_run_killed_in_a_step_and_in_a_checkpoint_is_equal(
    workshop: Workshop, straight: Path, tmp_path: Path
) -> None:
    run = tmp_path / straight.name
    moment = random.Random(os.getpid()).randint(1, 10)
    killed = workshop.start(run).until(lambda: steps_done(run) >= moment).signal(signal.SIGKILL)
    assert killed.code() == -signal.SIGKILL
    before = steps_done(run)
    killed = workshop.start(run).until(lambda: steps_done(run) > before and saving(run))
    assert killed.signal(signal.SIGKILL).code() == -signal.SIGKILL
    workshop.finish(run)
    assert outcome(run) == outcome(straight)
    assert not [*run.rglob("*.tmp"), *run.rglob("*.old")]


@pytest.mark.integration
def test_an_interrupted_run_can_be_taken_up_and_is_equal(
    workshop: Workshop, straight: Path, tmp_path: Path
) -> None:
    run = tmp_path / straight.name
    first = workshop.start(run).until(lambda: steps_done(run) >= 4)
    first.signal(signal.SIGSTOP)  # it should not end before the second has tried
    second = workshop.start(run)
    assert second.code() == 1
    assert "another process is training here" in second.said()
    assert "Traceback" not in second.said()
    first.signal(signal.SIGINT).signal(signal.SIGCONT)
    assert first.code() == 130
    assert f"stopped at step {steps_done(run)}; repeat the command" in first.said()
    saved = max((run / "checkpoints").glob("step-*")).name
    assert saved == f"step-{steps_done(run):06d}", "it should save before it ends"
    assert f"resuming at step {steps_done(run)} of {STEPS}" in workshop.finish(run)
    assert outcome(run) == outcome(straight)


@pytest.mark.integration
def test_damaged_checkpoints_are_passed_over_and_the_run_is_equal(
    workshop: Workshop, straight: Path, copied: Path
) -> None:
    newest, second, third = sorted((copied / "checkpoints").iterdir(), reverse=True)
    damage(newest / "weights.safetensors")
    (second / "DONE").unlink()
    said = workshop.finish(copied)
    assert f"{newest.name}/weights.safetensors is damaged" in said
    assert f"{second.name}/DONE does not exist" in said
    assert "going back to an older checkpoint" in said
    assert f"resuming at step {int(third.name[5:])} of {STEPS}" in said
    assert outcome(copied) == outcome(straight)


@pytest.mark.integration
def test_where_all_checkpoints_are_damaged_nothing_is_lost_and_nothing_guessed(
    workshop: Workshop, copied: Path
) -> None:
    for checkpoint in (copied / "checkpoints").iterdir():
        damage(checkpoint / "optimizer.safetensors")
    metrics = (copied / "metrics.jsonl").read_bytes()
    command = workshop.start(copied)
    assert command.code() == 1
    assert "start over with --fresh" in command.said() and "Traceback" not in command.said()
    assert (copied / "metrics.jsonl").read_bytes() == metrics


def test_a_finished_run_is_left_alone(workshop: Workshop, copied: Path) -> None:
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    assert "this run is already finished" in workshop.finish(copied)
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


@pytest.mark.integration
def test_a_run_killed_behind_its_last_step_still_gets_its_report(
    workshop: Workshop, straight: Path, copied: Path
) -> None:
    (copied / "report.md").unlink()
    workshop.finish(copied)
    assert f"| steps | {STEPS} |" in (copied / "report.md").read_text()
    assert outcome(copied) == outcome(straight)


def test_other_settings_are_refused_and_name_the_key(workshop: Workshop, copied: Path) -> None:
    command = workshop.start(copied, "optim.lr=0.5")
    assert command.code() == 2
    assert "optim.lr was 0.02, is now 0.5" in command.said()


@pytest.mark.integration
def test_another_number_of_threads_warns(workshop: Workshop, copied: Path) -> None:
    shutil.rmtree(copied / "checkpoints" / f"step-{STEPS:06d}")
    said = workshop.finish(copied, "threads=2")
    assert "threads was 1, is now 2" in said and "not bit for bit" in said
    assert steps_done(copied) == STEPS


@pytest.mark.integration
def test_files_that_may_not_grow_stop_a_run_and_lose_nothing(
    workshop: Workshop, straight: Path, tmp_path: Path
) -> None:
    run = tmp_path / straight.name
    command = workshop.start(run, file_limit=100_000)
    assert command.code() == 1
    assert "ulimit -f" in command.said() and "Traceback" not in command.said()
    workshop.finish(run)
    assert outcome(run) == outcome(straight)


@pytest.mark.integration
def test_a_full_disk_stops_a_run_and_loses_nothing(
    workshop: Workshop, straight: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only an administrator can make a small disk")
    try:
        run = disk / straight.name
        command = workshop.start(run)
        assert command.code() == 1
        assert "the disk is full" in command.said() and "Traceback" not in command.said()
        assert 3 < steps_done(run) < STEPS, "it should fail behind the first checkpoint"
        larger = ["mount", "-o", "remount,size=50m", str(disk)]
        subprocess.run(larger, check=True)
        assert "resuming at step" in workshop.finish(run)
        assert outcome(run) == outcome(straight)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.integration
def test_too_little_memory_says_what_to_change(workshop: Workshop, tmp_path: Path) -> None:
    large = ["batch.micro_rows=512", "batch.tokens=16384", "model.mlp.hidden_dim=16384"]
    command = workshop.start(tmp_path / "run", *large, memory_limit=600_000_000)
    assert command.code() == 1
    assert "out of memory: this recipe needs about" in command.said()
    assert "batch.micro_rows=256 (about" in command.said()
    assert "Traceback" not in command.said()
