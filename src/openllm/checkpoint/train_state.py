# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Training checkpoints: `step-NNNNNN/` folders that are complete or ignored.

`weights.safetensors`, `ema.safetensors` (if enabled), `optimizer.safetensors`, `state.json`, and
`DONE` with the SHA-256 of each. The folder appears by one rename, so a kill leaves nothing half
written; the checksums detect later damage on disk.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from torch.optim import Optimizer

from openllm.checkpoint.tensors import save_tensors
from openllm.core.errors import CheckpointError
from openllm.core.files import atomic_folder, read_json, sha256_file, write_json

FOLDER = re.compile(r"step-(\d{6,})")
WEIGHTS, OPTIMIZER, EMA, VALUES = (
    "weights.safetensors",
    "optimizer.safetensors",
    "ema.safetensors",
    "state.json",
)


@dataclass(frozen=True)
class TrainState:
    """All that a run needs to resume as if it had never stopped."""

    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    ema: Mapping[str, Tensor] | None
    values: Mapping[str, Any]


def flatten_optimizers(optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """State tensors of all optimizers under `OPTIMIZER.PARAMETER.NAME` keys.

    Settings are not saved: they come from the recipe, learning rates from the schedule.
    """
    return {
        f"{number}.{index}.{name}": value
        for number, optimizer in enumerate(optimizers)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizers(optimizers: Sequence[Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Restore flattened state."""
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            owner, index, name = key.split(".", 2)
            if int(owner) == number:
                # a copy: a memory-mapped file would keep its disk space after removal
                state.setdefault(int(index), {})[name] = value.clone()
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def save_state(folder: Path, step: int, state: TrainState, *, keep: int) -> Path:
    """Write the checkpoint of `step` and remove all but the newest `keep`."""
    target = folder / f"step-{step:06d}"
    with atomic_folder(target) as temporary:
        save_tensors(temporary / WEIGHTS, state.weights)
        save_tensors(temporary / OPTIMIZER, state.optimizer)
        if state.ema is not None:
            save_tensors(temporary / EMA, state.ema)
        write_json(temporary / VALUES, dict(state.values))
        sums = {file.name: sha256_file(file) for file in sorted(temporary.iterdir())}
        write_json(temporary / "DONE", {"sha256": sums})
    states = list_states(folder)
    count = states.index(target) + 1
    # newer ones were found damaged, or this step would not have been trained again
    for old in [*states[: max(0, count - keep)], *states[count:], *folder.glob(".step-*")]:
        shutil.rmtree(old)
    return target


def list_states(folder: Path) -> list[Path]:
    """List checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if FOLDER.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def load_state(path: Path) -> TrainState:
    """Read one checkpoint.

    Raises:
        CheckpointError: a file is missing, was changed, or has a newer format.
    """
    mend = "an older checkpoint will be used if there is one"
    sums = read_json(path / "DONE", CheckpointError, mend).get("sha256")
    if not isinstance(sums, dict) or not {WEIGHTS, OPTIMIZER, VALUES} <= sums.keys():
        raise CheckpointError(f"{path / 'DONE'} is damaged: it does not list all files")
    for name, expected in sums.items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing")
        if sha256_file(file) != expected:
            raise CheckpointError(f"{file} is damaged: its SHA-256 does not match the one in DONE")
    return TrainState(
        weights=load_file(path / WEIGHTS),
        optimizer=load_file(path / OPTIMIZER),
        ema=load_file(path / EMA) if EMA in sums else None,
        values=read_json(path / VALUES, CheckpointError, mend),
    )


def load_newest(folder: Path) -> tuple[TrainState | None, list[str]]:
    """Load the newest intact checkpoint; also return what is wrong with newer ones.

    Raises:
        CheckpointError: there are checkpoints but none is intact.
    """
    problems = []
    for path in reversed(list_states(folder)):
        try:
            return load_state(path), problems
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError(
            f"no checkpoint in {folder} can be used ({'; '.join(problems)}); "
            "start over with --fresh"
        )
    return None, []
