# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.tiny import SHAPES, random_model

from openllm.checkpoint.train_state import (
    TrainState,
    flatten_optimizers,
    list_states,
    load_newest,
    load_state,
    restore_optimizers,
    save_state,
)
from openllm.core.errors import CheckpointError
from openllm.train.optim import MuonConfig


def state_of(step: int, *, ema: bool = True) -> TrainState:
    weights = {"a": torch.full((3, 4), float(step)), "b": torch.arange(5.0)}
    return TrainState(
        weights,
        {"0.0.step": torch.tensor(float(step)), "0.0.exp_avg": torch.ones(3, 4)},
        {name: tensor + 1 for name, tensor in weights.items()} if ema else None,
        {"step": step, "hooks": [{"best": None}]},
    )


def flip(path: Path, at: int = -3) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("ema", [True, False])
def test_a_state_is_read_back_bit_by_bit(tmp_path: Path, ema: bool) -> None:
    state = state_of(7, ema=ema)
    again = load_state(save_state(tmp_path, 7, state, keep=2))
    for part in ("weights", "optimizer", "ema"):
        expected, found = getattr(state, part), getattr(again, part)
        assert (expected is None) == (found is None)
        if expected is not None:
            assert expected.keys() == found.keys()
            assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert again.values["step"] == 7 and again.values["hooks"] == [{"best": None}]


def test_only_the_newest_stay(tmp_path: Path) -> None:
    for step in (3, 6, 9, 1_000_000):
        save_state(tmp_path, step, state_of(step), keep=2)
    assert names(tmp_path) == ["step-000009", "step-1000000"]
    assert load_newest(tmp_path)[0].values["step"] == 1_000_000


def test_no_checkpoints_are_no_error(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "absent") == (None, [])
    assert load_newest(tmp_path) == (None, [])


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a flipped bit in the weights": lambda path: flip(path / "weights.safetensors"),
    "a flipped bit in the optimizer": lambda path: flip(path / "optimizer.safetensors"),
    "a flipped bit in the average": lambda path: flip(path / "ema.safetensors"),
    "a flipped bit in the values": lambda path: flip(path / "state.json"),
    "truncated weights": lambda path: (path / "weights.safetensors").write_bytes(b"\0" * 9),
    "an empty file": lambda path: (path / "state.json").write_bytes(b""),
    "a missing file": lambda path: (path / "ema.safetensors").unlink(),
    "no DONE": lambda path: (path / "DONE").unlink(),
    "an empty DONE": lambda path: (path / "DONE").write_text("{}"),
    "a DONE that names too little": lambda path: (path / "DONE").write_text('{"sha256": {}}'),
    "a broken DONE": lambda path: flip(path / "DONE", 0),
    "an empty folder": lambda path: [file.unlink() for file in path.iterdir()],
    "a newer format": lambda path: (path / "DONE").write_text('{"format_version": 99}'),
}


@pytest.mark.parametrize("what", sorted(DAMAGE))
def test_a_damaged_checkpoint_is_passed_over_with_a_reason(what: str, tmp_path: Path) -> None:
    save_state(tmp_path, 3, state_of(3), keep=3)
    DAMAGE[what](save_state(tmp_path, 6, state_of(6), keep=3))
    state, problems = load_newest(tmp_path)
    assert state.values["step"] == 3
    (problem,) = problems
    assert "step-000006" in problem


@pytest.mark.parametrize("at", range(0, 300, 13))
def test_no_flipped_bit_of_done_goes_unseen(at: int, tmp_path: Path) -> None:
    """The change is either detected or harmless."""
    path = save_state(tmp_path, 3, state_of(3), keep=3)
    if at >= (path / "DONE").stat().st_size:
        return
    flip(path / "DONE", at)
    try:
        again = load_state(path)
    except CheckpointError:
        return
    assert again.ema is not None
    assert torch.equal(again.weights["a"], state_of(3).weights["a"])


def test_where_all_are_damaged_nothing_is_guessed(tmp_path: Path) -> None:
    for step in (3, 6):
        flip(save_state(tmp_path, step, state_of(step), keep=3) / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"step-000006.*step-000003.*--fresh"):
        load_newest(tmp_path)


def test_a_new_checkpoint_is_kept_though_damaged_ones_are_newer(tmp_path: Path) -> None:
    for step in (3, 6, 9):
        save_state(tmp_path, step, state_of(step), keep=3)
    for step in (6, 9):
        flip(tmp_path / f"step-{step:06d}" / "weights.safetensors")
    save_state(tmp_path, 4, state_of(4), keep=2)  # as after Ctrl-C
    assert names(tmp_path) == ["step-000003", "step-000004"]
    assert load_newest(tmp_path)[0].values["step"] == 4


def test_what_a_kill_left_half_written_is_ignored_and_removed(tmp_path: Path) -> None:
    save_state(tmp_path, 3, state_of(3), keep=2)
    half = tmp_path / ".step-000006.tmp"
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half")
    assert [path.name for path in list_states(tmp_path)] == ["step-000003"]
    save_state(tmp_path, 5, state_of(5), keep=2)
    assert names(tmp_path) == ["step-000003", "step-000005"]


def test_a_checkpoint_is_replaced_whole(tmp_path: Path) -> None:
    path = save_state(tmp_path, 3, state_of(3), keep=2)
    flip(path / "weights.safetensors")
    save_state(tmp_path, 3, state_of(3), keep=2)
    assert load_newest(tmp_path)[1] == []


def test_optimizers_go_on_from_their_state() -> None:
    def make() -> tuple[torch.nn.Module, list[torch.optim.Optimizer]]:
        model = random_model(SHAPES["gpt2"])
        return model, MuonConfig().build(model)

    def step(model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step()

    model, optimizers = make()
    step(model, optimizers, 0)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors = {key: tensor.clone() for key, tensor in flatten_optimizers(optimizers).items()}
    step(model, optimizers, 1)

    other, fresh = make()
    other.load_state_dict(weights)
    restore_optimizers(fresh, tensors)
    step(other, fresh, 1)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_checkpoint_can_be_moved(tmp_path: Path) -> None:
    save_state(tmp_path / "here", 3, state_of(3), keep=1)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    assert load_newest(tmp_path / "there")[0].values["step"] == 3
    assert json.loads((tmp_path / "there/step-000003/DONE").read_text())["format_version"] == 1
