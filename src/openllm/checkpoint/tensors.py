# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Safetensors files: read their header and check it, write them whole or piece by piece."""

import json
import math
import os
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from openllm.core.errors import CheckpointError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""The format's names of dtypes."""

NAMES = {dtype: name for name, dtype in DTYPES.items()}
MOST_HEADER_BYTES = 100_000_000
"""As in the safetensors library."""

PIECE_ELEMENTS = 8 * 2**20
"""Elements of a tensor in memory at a time while it is streamed."""


class Stored(NamedTuple):
    """Where a tensor lies in a file: dtype by the format's name, first byte, number of bytes."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    size: int


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of a file; none of their data is read.

    Raises:
        CheckpointError: the file is missing, truncated or damaged, or its tensors overlap, leave
            gaps, share a name or have an unknown dtype.
    """
    mend = "copy the whole model folder again"
    try:
        with open(path, "rb") as handle:
            total = os.fstat(handle.fileno()).st_size
            length = int.from_bytes(handle.read(8), "little")
            if total < 8 or not 2 <= length <= min(total - 8, MOST_HEADER_BYTES):
                raise CheckpointError(
                    f"{path} is damaged (its header cannot be {length:,} bytes long in a file of "
                    f"{total:,}); {mend}"
                )
            raw = handle.read(length)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; {mend}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); {mend}") from None
    try:
        header = json.loads(raw, object_pairs_hook=_unique)
        if not isinstance(header, dict):
            raise ValueError("the header is not a JSON object")
        header.pop("__metadata__", None)
        found = [(name, _entry(path, name, facts, 8 + length)) for name, facts in header.items()]
        _check_extents(found, 8 + length, total)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); {mend}") from None
    return dict(found)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the name {reprlib.repr(twice)} stands there twice")
    return names


def _entry(path: Path, name: str, facts: Any, base: int) -> Stored:
    """Check the facts of one tensor."""
    shown = reprlib.repr(name)
    try:
        kind, shape, (first, last) = facts["dtype"], facts["shape"], facts["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"the facts of {shown} are incomplete") from None
    if not isinstance(kind, str) or kind not in DTYPES:
        raise ValueError(f"{shown} has the unknown dtype {reprlib.repr(kind)}")
    whole = [first, last, *shape] if isinstance(shape, list) else [None]
    if not all(type(item) is int and item >= 0 for item in whole):
        raise ValueError(f"{shown} has an impossible shape or place")
    size = math.prod(shape) * DTYPES[kind].itemsize
    if last - first != size:
        raise ValueError(f"{shown} takes {last - first:,} bytes, but its shape needs {size:,}")
    return Stored(path, DTYPES[kind], tuple(shape), base + first, size)


def _check_extents(found: Iterable[tuple[str, Stored]], base: int, total: int) -> None:
    end = base
    for name, tensor in sorted(found, key=lambda item: (item[1].start, item[1].size)):
        if tensor.start != end:
            what = "overlaps the one before" if tensor.start < end else "leaves a gap before it"
            raise ValueError(f"{reprlib.repr(name)} {what}")
        end += tensor.size
    if end != total:
        what = "truncated" if end > total else "followed by other bytes"
        raise ValueError(f"the tensors end at byte {end:,} of {total:,}: it is {what}")


def read_pieces(tensor: Stored, elements: int = PIECE_ELEMENTS) -> Iterator[Tensor]:
    """The elements of a tensor in order, so many at a time.

    Plain reads: pages of a memory map would count as memory of this process.
    """
    left = tensor.size // tensor.dtype.itemsize
    with open(tensor.path, "rb", buffering=0) as handle:
        handle.seek(tensor.start)
        while left:
            piece = torch.empty(min(left, elements), dtype=tensor.dtype)
            _fill(handle, piece, tensor.path)
            left -= len(piece)
            yield piece


def read_tensor(tensor: Stored) -> Tensor:
    """All of a tensor."""
    for piece in read_pieces(tensor, max(1, math.prod(tensor.shape))):
        return piece.view(tensor.shape)
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _fill(handle: Any, piece: Tensor, path: Path) -> None:
    room = memoryview(piece.view(torch.uint8).numpy())
    while room:
        count = handle.readinto(room)
        if not count:
            raise CheckpointError(f"{path} was cut short while it was read; copy it again")
        room = room[count:]


class Planned(NamedTuple):
    """A tensor to write: its name, dtype and shape, and its elements in order."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: Iterable[Tensor]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_streamed(path: Path, tensors: Sequence[Planned]) -> None:
    """Write a file whose tensors are never in memory at once.

    Raises:
        OSError: the file cannot be written.
    """
    # wide elements first, so that each tensor is aligned
    ordered = sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in ordered:
        header[tensor.name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.size],
        }
        end += tensor.size
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    with open(path, "wb") as handle:
        handle.write(len(raw).to_bytes(8, "little") + raw)
        for tensor in ordered:
            before = handle.tell()
            for piece in tensor.pieces:
                handle.write(memoryview(piece.flatten().view(torch.uint8).numpy()))
            assert handle.tell() - before == tensor.size, tensor.name


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors.

    Raises:
        OSError: the file cannot be written, as from `open`; safetensors has its own error.
    """
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
        path.chmod(mode)  # safetensors makes it readable by the owner only
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error
