# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A GGUF file: metadata and tensors, written and read one tensor at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openllm.core.errors import CheckpointError
from openllm.core.log import Meter
from openllm.core.plugins import require

Dtype = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
BLOCK = 32
"""Values that share a scale in q8_0 and q4_0; they lie in one row."""

FILE_TYPES: dict[Dtype, int] = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}
"""`general.file_type` of a file most of whose values have that type."""


class Stored(NamedTuple):
    """Name, shape and type of a tensor in the file."""

    name: str
    shape: tuple[int, ...]
    dtype: Dtype


class Blocks(NamedTuple):
    """A matrix that is quantised already.

    Attributes:
        whole: (N, K) int8, within the range of its type.
        scales: (N, K / 32).
    """

    whole: NDArray[np.int8]
    scales: NDArray[np.float16]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, K)."""
        return self.whole.shape

    def pack(self, dtype: Dtype) -> NDArray[np.uint8]:
        """As llama.cpp lays them out: each block its scale, then its integers, (N, bytes)."""
        rows = self.whole.shape[0]
        blocks = self.whole.reshape(rows, -1, BLOCK)
        if dtype == "q4_0":
            raised = (blocks + 8).astype(np.uint8)
            packed = raised[..., : BLOCK // 2] | raised[..., BLOCK // 2 :] << 4
        else:
            packed = blocks.view(np.uint8)
        scales = np.ascontiguousarray(self.scales[..., None]).view(np.uint8)
        return np.concatenate((scales, packed), axis=-1).reshape(rows, -1)


def write_gguf(
    path: Path,
    architecture: str,
    metadata: Mapping[str, Any],
    tensors: Sequence[Stored],
    read: Callable[[str], NDArray[np.float32] | Blocks],
    meter: Meter,
) -> None:
    """Write a file; `read` gives the values of a tensor when its turn comes.

    Args:
        path: the new file.
        architecture: llama.cpp's name of the model's shape.
        metadata: booleans, integers, numbers, strings, and lists of them, by key.
        tensors: in the order of the file.
        read: the values of a tensor in float32, or blocks of its type, by its name.
        meter: advanced by the values written.

    Raises:
        CheckpointError: values that are not finite, or not in the tensor's type.
    """
    gguf = require("gguf")
    writer = gguf.GGUFWriter(path, architecture)
    try:
        for key, value in metadata.items():
            _add(writer, key, value)
        for tensor in tensors:
            kind = gguf.GGMLQuantizationType[tensor.dtype.upper()]
            block, size = gguf.GGML_QUANT_SIZES[kind]
            count = int(np.prod(tensor.shape))
            writer.add_tensor_info(
                tensor.name, tensor.shape, np.dtype(np.float32), count // block * size, kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            kind = gguf.GGMLQuantizationType[tensor.dtype.upper()]
            values = read(tensor.name)
            if values.shape != tensor.shape:
                raise CheckpointError(
                    f"{tensor.name} has the shape {values.shape}, but its config says "
                    f"{tensor.shape}; copy the model folder again"
                )
            if isinstance(values, Blocks):
                data = values.pack(tensor.dtype)
            else:
                with np.errstate(over="ignore"):
                    data = gguf.quantize(values, kind)
                _check(tensor, values, data)
            writer.write_tensor_data(data)
            meter.advance(int(np.prod(values.shape)))
        writer.flush()
    finally:
        writer.close()


def _check(tensor: Stored, values: NDArray[np.float32], data: NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"{tensor.name} holds values that are not finite; the model's weights are damaged"
        )
    if data.dtype == np.float16 and not np.isfinite(data).all():
        raise CheckpointError(
            f"{tensor.name} holds values beyond the range of f16; choose bf16 or f32"
        )


def _add(writer: Any, key: str, value: Any) -> None:
    """Add a value with the type that llama.cpp expects: unsigned, and 32 bits wide."""
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


class GGUFFile:
    """A GGUF file, mapped into memory.

    Attributes:
        metadata: values by key.
        tensors: what the file holds, by name.
    """

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            CheckpointError: missing, damaged or not a GGUF file.
        """
        gguf = require("gguf")
        try:
            self._reader = gguf.GGUFReader(path)
        except FileNotFoundError:
            raise CheckpointError(f"{path} does not exist; export the model again") from None
        except (ValueError, KeyError, IndexError, OSError) as error:
            raise CheckpointError(
                f"{path} is damaged or not a GGUF file ({error}); export the model again"
            ) from None
        self.metadata: dict[str, Any] = {
            key: field.contents() for key, field in self._reader.fields.items()
        }
        self._data = {tensor.name: tensor for tensor in self._reader.tensors}
        self.tensors = {
            name: Stored(
                name,
                tuple(int(size) for size in reversed(tensor.shape)),
                tensor.tensor_type.name.lower(),
            )
            for name, tensor in self._data.items()
        }

    def read(self, name: str) -> NDArray[np.float32]:
        """The values of a tensor in float32."""
        gguf = require("gguf")
        tensor = self._data[name]
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        return np.array(values, dtype=np.float32).reshape(self.tensors[name].shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)
