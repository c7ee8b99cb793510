# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The weights of a model folder, in one file or several, read one tensor at a time.

`model.safetensors`, or the shards that `model.safetensors.index.json` names. Pickled weights
(`pytorch_model.bin`) are read on request alone, and only as tensors: nothing in them is run.
"""

import json
import math
import pickle
import re
import reprlib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openllm.checkpoint.tensors import (
    PIECE_ELEMENTS,
    Planned,
    Stored,
    read_header,
    read_pieces,
    read_tensor,
    write_streamed,
)
from openllm.core.errors import CheckpointError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
SHARD = re.compile(r"model-\d{5,}-of-\d{5,}\.safetensors")
"""Names of shards as we write them."""

MEND = "copy the whole model folder again"


class Weights:
    """Tensors of a folder by name.

    Attributes:
        files: those the tensors are in, the index included.
        tensors: name -> where it lies; nothing is read before it is asked for.
    """

    def __init__(self, files: list[Path], tensors: dict[str, Stored]) -> None:
        self.files, self.tensors = files, tensors

    def read(self, name: str) -> Tensor:
        """A tensor in its own dtype."""
        return read_tensor(self.tensors[name])

    def pieces(self, name: str) -> Iterator[Tensor]:
        """The elements of a tensor in order, in pieces of bounded size."""
        return read_pieces(self.tensors[name])


class PickledWeights(Weights):
    """Tensors in pickle files; one file is open at a time, and mapped rather than read."""

    def __init__(self, files: list[Path], shards: list[Path]) -> None:
        self._open: tuple[Path, dict[str, Tensor]] | None = None
        tensors: dict[str, Stored] = {}
        for path in shards:
            for name, tensor in self._load(path).items():
                if name in tensors:
                    raise CheckpointError(f"{path} has {name!r} again; {MEND}")
                size = tensor.numel() * tensor.element_size()
                tensors[name] = Stored(path, tensor.dtype, tuple(tensor.shape), 0, size)
        super().__init__(files, tensors)

    def read(self, name: str) -> Tensor:
        """A tensor in its own dtype."""
        return self._load(self.tensors[name].path)[name].clone()

    def pieces(self, name: str) -> Iterator[Tensor]:
        """The elements of a tensor in order, in pieces of bounded size."""
        tensor = self._load(self.tensors[name].path)[name]
        return iter(tensor.reshape(-1).split(PIECE_ELEMENTS))

    def _load(self, path: Path) -> dict[str, Tensor]:
        if self._open is not None and self._open[0] == path:
            return self._open[1]
        self._open = None  # free one file before the next is opened
        try:
            # old files, which are not zip archives, cannot be mapped
            mapped = zipfile.is_zipfile(path)
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError:
            raise CheckpointError(
                f"{path} holds more than tensors, perhaps code, and was not read; use a "
                "checkpoint in safetensors format"
            ) from None
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
            first = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{path} is damaged ({first}); {MEND}") from None
        wrong = not isinstance(found, dict) or not all(
            isinstance(name, str) and isinstance(item, Tensor) and item.layout == torch.strided
            for name, item in found.items()
        )
        if wrong:
            raise CheckpointError(f"{path} is not a table of named tensors; {MEND}")
        self._open = path, found
        return found


def open_weights(folder: Path, *, allow_pickle: bool = False) -> Weights:
    """Find the weights of a folder; data is read later, tensor by tensor.

    Raises:
        CheckpointError: no weights, a damaged file or index, a tensor that is not where the index
            says, or pickled weights without `allow_pickle`.
    """
    if (folder / WEIGHTS).exists():
        return Weights([folder / WEIGHTS], read_header(folder / WEIGHTS))
    if (folder / INDEX).exists():
        return _open_shards(folder)
    pickled = [name for name in (PICKLE, PICKLE_INDEX) if (folder / name).exists()]
    others = [name for name in ("model.onnx", "index.html") if (folder / name).exists()]
    if not pickled and others:
        raise CheckpointError(
            f"{folder} holds {others[0]}, an export for another program; give the model that it "
            "was made from"
        )
    if not pickled:
        raise CheckpointError(f"{folder / WEIGHTS} does not exist; {MEND}")
    if not allow_pickle:
        raise CheckpointError(
            f"{folder} has its weights in pickle files ({pickled[0]}), which can hold code; use a "
            "checkpoint in safetensors format, or import it with --allow-pickle, which reads "
            "nothing but tensors"
        )
    if pickled[0] == PICKLE:
        return PickledWeights([folder / PICKLE], [folder / PICKLE])
    places = _read_index(folder / PICKLE_INDEX, ".bin")
    shards = [folder / name for name in sorted(set(places.values()))]
    weights = PickledWeights([folder / PICKLE_INDEX, *shards], shards)
    _check_places(folder / PICKLE_INDEX, places, weights.tensors)
    return weights


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of a folder.

    Raises:
        CheckpointError: as `open_weights`.
    """
    return open_weights(folder).files


def _open_shards(folder: Path) -> Weights:
    places = _read_index(folder / INDEX, ".safetensors")
    tensors: dict[str, Stored] = {}
    shards = [folder / name for name in sorted(set(places.values()))]
    for path in shards:
        for name, tensor in read_header(path).items():
            if name in tensors:
                raise CheckpointError(
                    f"{path.name} and {tensors[name].path.name} both have {name!r}; {MEND}"
                )
            tensors[name] = tensor
    _check_places(folder / INDEX, places, tensors)
    return Weights([folder / INDEX, *shards], tensors)


def _check_places(index: Path, places: dict[str, str], tensors: dict[str, Stored]) -> None:
    wrong = [
        name
        for name, shard in places.items()
        if name not in tensors or tensors[name].path.name != shard
    ]
    if wrong:
        raise CheckpointError(
            f"{index} says that {places[wrong[0]]} has {reprlib.repr(wrong[0])}, but it does not "
            f"({len(wrong)} such tensors); {MEND}"
        )


def _read_index(path: Path, suffix: str) -> dict[str, str]:
    """Name of each tensor -> name of its shard, which must be a plain file name.

    Raises:
        CheckpointError: the index is damaged, or names a file outside the folder.
    """
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not isinstance(places, dict) or not places:
            raise ValueError("no names")
    except (ValueError, KeyError, TypeError, RecursionError, OSError):
        raise CheckpointError(f"{path} is not a list of weights; {MEND}") from None
    for shard in places.values():
        plain = isinstance(shard, str) and re.fullmatch(r"[\w.-]+", shard, re.ASCII)
        if not plain or shard.startswith(".") or not shard.endswith(suffix):
            raise CheckpointError(
                f"{path} names the file {reprlib.repr(shard)}; only plain names of {suffix} files "
                "beside it are allowed"
            )
    return places


def write_weights(folder: Path, tensors: Iterable[Planned], max_shard_bytes: int) -> list[Path]:
    """Stream tensors into one file, or into shards and an index if they need more room.

    Args:
        folder: exists; the files are new.
        tensors: in order.
        max_shard_bytes: of tensors in a file; a larger tensor has a file of its own.

    Returns:
        The files, the index last.
    """
    shards: list[list[Planned]] = [[]]
    room = max_shard_bytes
    for tensor in tensors:
        if tensor.size > room and shards[-1]:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(tensor)
        room -= tensor.size
    if len(shards) == 1:
        write_streamed(folder / WEIGHTS, shards[0])
        return [folder / WEIGHTS]
    names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        write_streamed(folder / name, shard)
    index: dict[str, Any] = {
        "metadata": {
            "total_size": sum(tensor.size for shard in shards for tensor in shard),
            "total_parameters": sum(math.prod(t.shape) for shard in shards for t in shard),
        },
        "weight_map": {
            tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard
        },
    }
    text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    (folder / INDEX).write_text(text, encoding="utf-8")
    return [folder / name for name in (*names, INDEX)]
