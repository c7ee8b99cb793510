# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Low-rank adapters in PEFT's folders: `adapter_config.json` and `adapter_model.safetensors`.

Pickled adapters are never read.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from openllm.checkpoint.adapter_modules import Base
from openllm.checkpoint.adapter_values import AdapterValues, read_values
from openllm.checkpoint.families.registry import FAMILIES
from openllm.checkpoint.source import FLOATS, first_few, size_text
from openllm.checkpoint.tensors import NAMES, Stored, read_header, read_tensor, save_tensors
from openllm.core.errors import CheckpointError
from openllm.core.files import atomic_folder, read_json
from openllm.nn.config import ModelConfig
from openllm.nn.lora import Adapter, LowRank

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
FILES = (CONFIG, WEIGHTS)
"""What `write_adapter` writes."""

A, B, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
KEY = re.compile(
    rf"base_model\.model\.(?P<module>.+)\.(?:(?P<part>{re.escape(A)}|{re.escape(B)}|{MAGNITUDE})"
    r"|lora_magnitude_vector\.weight)"
)
"""Names of tensors; PEFT has written the lengths of DoRA in both ways."""

MERGE = "merge the adapter into its base with PEFT, and import the result"

Parts = Mapping[str, Mapping[str, Stored]]
"""Where the tensors of each module are, by `A`, `B` and `MAGNITUDE`."""


def read_adapter(folder: Path | str, base: Path | str | Base | ModelConfig) -> Adapter:
    """Read an adapter in float32.

    Args:
        folder: as PEFT or `write_adapter` writes it.
        base: the folder of the model that it is for; or, if that is not known, its config: then
            modules may be named as in any family that fits it.

    Raises:
        CheckpointError: missing or damaged files, a feature that is not supported, or an adapter
            that does not fit the base.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; give the folder of an adapter")
    mend = f"give the folder of an adapter, with {CONFIG} and {WEIGHTS}"
    path = folder / CONFIG
    values = read_values(read_json(path, CheckpointError, mend), str(path))
    if not (folder / WEIGHTS).exists() and (folder / PICKLE).exists():
        raise CheckpointError(
            f"{folder} holds pickled weights ({PICKLE}), which may hold code and are never read; "
            "load the adapter with PEFT and save it again with safe_serialization=True"
        )
    parts = _by_module(folder / WEIGHTS)
    target = _base(base, parts)
    problems = _misplaced(parts, values, target) or _misshapen(parts, values, target)
    if problems:
        raise CheckpointError(
            f"{folder} is damaged or for another base model: {'; '.join(problems)}"
        )
    changes: dict[str, LowRank] = {}
    for module in target.modules:
        if module in parts:
            found = {part: _read(module, part, place) for part, place in parts[module].items()}
            scale = values.scale_of(module)
            whole = LowRank(found[A], found[B], scale, found.get(MAGNITUDE))
            changes |= target.split(module, whole)
    return Adapter(changes, values.rank_stabilised, values.dropout)


def write_adapter(
    folder: Path | str, adapter: Adapter, base: Path | str | Base, *, name: str | None = None
) -> None:
    """Write an adapter as PEFT does, atomically.

    Args:
        folder: replaced if it exists.
        adapter: fits the base.
        base: the folder of the model that it is for, which says how modules are named.
        name: what the file calls the base, such as its id on the hub; none: nothing.

    Raises:
        CheckpointError: the adapter does not fit, or the family cannot express it.
    """
    target = base if isinstance(base, Base) else Base.read(Path(base))
    joined = target.join(adapter.changes)
    values = target.describe(joined, adapter)
    state = {}
    for module, change in joined.items():
        for part, tensor in zip((A, B, MAGNITUDE), change.tensors(), strict=False):
            # a copy: safetensors refuses tensors that share memory
            kept = tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
            state[f"base_model.model.{module}.{part}"] = kept
    config = values.dump(name, transposed=bool(target.family.transposed))
    with atomic_folder(folder) as place:
        (place / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_tensors(place / WEIGHTS, state)


def _base(given: Path | str | Base | ModelConfig, modules: Iterable[str]) -> Base:
    if isinstance(given, Base):
        return given
    if not isinstance(given, ModelConfig):
        return Base.read(Path(given))
    bases = [Base.of(given, family) for family in FAMILIES.values() if family.fits(given)]
    return next((base for base in bases if base.modules.keys() >= set(modules)), bases[0])


def _by_module(path: Path) -> Parts:
    parts: dict[str, dict[str, Stored]] = {}
    strange = []
    for name, place in read_header(path).items():
        match = KEY.fullmatch(name)
        part = MAGNITUDE if match is None else match["part"] or MAGNITUDE
        if match is None or part in parts.get(match["module"], {}):
            strange.append(name)
        else:
            parts.setdefault(match["module"], {})[part] = place
    if strange:
        raise CheckpointError(
            f"{path} holds more than LoRA of linear layers: {first_few(strange)}; {MERGE}"
        )
    if not parts:
        raise CheckpointError(f"{path} holds no tensors; copy the adapter again")
    return parts


def _misplaced(parts: Parts, values: AdapterValues, base: Base) -> list[str]:
    """Modules that are strange, missing or incomplete."""
    wanted = {A, B, MAGNITUDE} if values.dora else {A, B}
    named = {module: values.is_target(module) for module in base.modules}
    lists = {
        "the base has no such matrix in attention or MLP": [
            module for module in parts if module not in base.modules
        ],
        f"named in {CONFIG}, but not in {WEIGHTS}": [
            module for module, target in named.items() if target and module not in parts
        ],
        f"in {WEIGHTS}, but not named in {CONFIG}": [
            module for module in parts if named.get(module) is False
        ],
        f"without exactly {', '.join(sorted(wanted))}": [
            module for module, given in parts.items() if set(given) != wanted
        ],
    }
    return [f"{what}: {first_few(items)}" for what, items in lists.items() if items]


def _misshapen(parts: Parts, values: AdapterValues, base: Base) -> list[str]:
    """Tensors of another shape or dtype."""
    shapes, kinds = [], []
    for module, given in parts.items():
        height, width = base.size(module)
        rank = values.rank_of(module)
        needed = {A: (rank, width), B: (height, rank), MAGNITUDE: (height,)}
        for part, place in given.items():
            if place.shape != needed[part]:
                shapes.append(
                    f"{module}.{part} is {size_text(place.shape)}, not {size_text(needed[part])}"
                )
            elif place.dtype not in FLOATS:
                kinds.append(f"{module}.{part} is {NAMES[place.dtype]}")
    lists = {"of another shape": shapes, "not of floating point": kinds}
    return [f"{what}: {first_few(items)}" for what, items in lists.items() if items]


def _read(module: str, part: str, place: Stored) -> Tensor:
    tensor = read_tensor(place).float()
    if not bool(tensor.isfinite().all()):
        raise CheckpointError(
            f"{place.path}: {module}.{part} holds NaN or infinity; use another checkpoint of it"
        )
    return tensor
