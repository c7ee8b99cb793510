# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Quantised matrices in model folders: packed for the files, read back one by one."""

# N rows, K columns, G groups of a row, W words of 32 bits

import math
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

from openllm.checkpoint.families.base import Link
from openllm.checkpoint.quantization import Quantization
from openllm.checkpoint.tensors import PIECE_ELEMENTS, Planned, Stored, read_tensor
from openllm.checkpoint.weights import Weights
from openllm.core.errors import CheckpointError
from openllm.nn.quantized import QuantizedTensor, Scheme

WEIGHT, WORDS, SCALE, SHAPE = "weight", "weight_packed", "weight_scale", "weight_shape"
"""What a module's tensors are called."""

SCALES = (torch.float16, torch.bfloat16, torch.float32)


def pack_words(q_NK: Tensor, bits: int) -> Tensor:
    """Integers, 32 / bits in a word, the first in the lowest bits; zero is the middle, (N, W)."""
    per_byte, half = 8 // bits, 2 ** (bits - 1)
    raised = (q_NK.to(torch.int16) + half).to(torch.uint8)
    missing = -q_NK.shape[1] % (4 * per_byte)
    # the words' unused bits are zero
    raised = torch.nn.functional.pad(raised, (0, missing))
    if bits == 4:
        raised = raised[:, ::2] | raised[:, 1::2] << 4
    return raised.contiguous().view(torch.int32)


def unpack_words(words_NW: Tensor, bits: int, columns: int) -> Tensor:
    """The inverse of `pack_words`, (N, K) int8."""
    raised = words_NW.view(torch.uint8)
    if bits == 4:
        raised = torch.stack((raised & 15, raised >> 4), dim=-1).flatten(1)
    half = 2 ** (bits - 1)
    return (raised[:, :columns].to(torch.int16) - half).to(torch.int8).contiguous()


def join(link: Link, matrices: Mapping[str, QuantizedTensor]) -> QuantizedTensor | None:
    """The matrix of theirs, its rows those of our model; none if it is not quantised.

    Args:
        link: what their matrix is made of; parts of one matrix have the same scheme.
        matrices: our name of each quantised matrix -> what it becomes.
    """
    parts = [matrices[name] for name in link.ours if name in matrices]
    if not parts:
        return None
    first = parts[0]
    assert len(parts) == len(link.ours) and {part[2:] for part in parts} == {first[2:]}, link.theirs
    if len(parts) == 1:
        return first
    q, scale = torch.cat([part.q for part in parts]), torch.cat([part.scale for part in parts])
    return QuantizedTensor(q, scale, first.bits, first.group)


def planned(module: str, tensor: QuantizedTensor, *, packed: bool) -> list[Planned]:
    """The tensors of a module's file entries.

    Args:
        module: its name in the files.
        tensor: its weight.
        packed: into words, or one integer in each byte.
    """
    scale = tensor.scale.contiguous()
    scales = Planned(f"{module}.{SCALE}", scale.dtype, tuple(scale.shape), (scale,))
    if not packed:
        return [Planned(f"{module}.{WEIGHT}", torch.int8, tensor.shape, (tensor.q,)), scales]
    width = math.ceil(tensor.shape[1] * tensor.bits / 32)
    shape = torch.tensor(tensor.shape)
    words = (pack_words(tensor.q, tensor.bits) for _ in range(1))  # made when it is written
    return [
        Planned(f"{module}.{WORDS}", torch.int32, (tensor.shape[0], width), words),
        Planned(f"{module}.{SHAPE}", torch.int64, (2,), (shape,)),
        scales,
    ]


class QuantizedWeights(Weights):
    """The weights of a folder with quantised matrices, which look like matrices in float32.

    Args:
        stored: the tensors in the files.
        quantization: what the config says of them.
        turned: names of matrices that the architecture wants transposed.

    Raises:
        CheckpointError: tensors that do not fit together or to the config.
    """

    def __init__(
        self, stored: Weights, quantization: Quantization, turned: Collection[str] = ()
    ) -> None:
        self._stored, self._turned = stored, frozenset(turned)
        self.schemes: dict[str, Scheme] = {}
        heads = [
            name.rpartition(".")
            for name, tensor in stored.tensors.items()
            if name.endswith(f".{WORDS}")
            or (name.endswith(f".{WEIGHT}") and tensor.dtype == torch.int8)
        ]
        parts = {f"{module}.{leaf}" for module, _, last in heads for leaf in (last, SCALE)}
        parts |= {f"{module}.{SHAPE}" for module, _, last in heads if last == WORDS}
        tensors = {name: tensor for name, tensor in stored.tensors.items() if name not in parts}
        for module, _, leaf in heads:
            self._add(module, leaf, quantization, tensors)
        super().__init__(stored.files, tensors)

    def _add(
        self, module: str, leaf: str, quantization: Quantization, tensors: dict[str, Stored]
    ) -> None:
        """Check the entries of a module and list its weight."""
        values, scale = self._need(f"{module}.{leaf}"), self._need(f"{module}.{SCALE}")
        name = f"{module}.{WEIGHT}"
        if name in tensors or scale.dtype not in SCALES or len(values.shape) != 2:
            raise self._misfit(name)
        rows, columns = values.shape
        bits = 8
        if leaf == WORDS:
            shape = self._need(f"{module}.{SHAPE}")
            if shape.dtype not in (torch.int64, torch.int32) or shape.shape != (2,):
                raise self._misfit(name)
            rows, columns = map(int, read_tensor(shape).tolist())
            found = [
                bits
                for bits in {scheme.bits for scheme in quantization.schemes}
                if values.shape == (rows, math.ceil(columns * bits / 32))
            ]
            if values.dtype != torch.int32 or not found:
                raise self._misfit(name)
            bits = found[0]
        groups = math.prod(scale.shape[1:])
        if len(scale.shape) > 2 or scale.shape[:1] != (rows,) or not groups or columns % groups:
            raise self._misfit(name)
        group = columns // groups
        possible = {Scheme(bits, group)} | ({Scheme(bits, None)} if groups == 1 else set())
        matching = possible & quantization.schemes
        if not matching:
            raise CheckpointError(
                f"{name!r} has {bits} bits in groups of {group} columns, which config.json does "
                f"not name; {_MEND}"
            )
        self.schemes[name] = matching.pop()
        full = (columns, rows) if name in self._turned else (rows, columns)
        tensors[name] = Stored(values.path, torch.float32, full, 0, 4 * rows * columns)

    def _need(self, name: str) -> Stored:
        if name not in self._stored.tensors:
            raise CheckpointError(f"{self._stored.files[0]} lacks {name!r}; {_MEND}")
        return self._stored.tensors[name]

    def _misfit(self, name: str) -> CheckpointError:
        return CheckpointError(
            f"{self._stored.files[0]}: the parts of the quantised {name!r} do not fit together; "
            f"{_MEND}"
        )

    def quantized(self, name: str) -> QuantizedTensor:
        """A matrix as it is stored; rows are those of our model, so it may be the transpose.

        Raises:
            CheckpointError: a scale is NaN or infinite.
        """
        scheme, stored = self.schemes[name], self._stored
        module = name.removesuffix(f".{WEIGHT}")
        scale = stored.read(f"{module}.{SCALE}")
        if not bool(scale.isfinite().all()):
            raise CheckpointError(
                f"a scale of {name!r} is NaN or infinite; such a model answers nothing, so use "
                "another checkpoint"
            )
        if f"{module}.{WORDS}" in stored.tensors:
            rows, columns = read_tensor(stored.tensors[f"{module}.{SHAPE}"]).tolist()
            q = unpack_words(stored.read(f"{module}.{WORDS}"), scheme.bits, columns)
        else:
            q = stored.read(name)
            rows, columns = q.shape
        scale = scale.view(rows, -1)
        return QuantizedTensor(q, scale, scheme.bits, columns // scale.shape[1])

    def read(self, name: str) -> Tensor:
        """A tensor; quantised ones become float32."""
        if name not in self.schemes:
            return self._stored.read(name)
        whole = self.quantized(name).dequantize()
        return whole.T.contiguous() if name in self._turned else whole

    def pieces(self, name: str) -> Iterator[Tensor]:
        """The elements of a tensor in order, in pieces of bounded size."""
        if name not in self.schemes:
            yield from self._stored.pieces(name)
        elif name in self._turned:
            yield from self.read(name).view(-1).split(PIECE_ELEMENTS)
        else:
            whole = self.quantized(name)
            step = max(1, PIECE_ELEMENTS // whole.shape[1])
            for start in range(0, whole.shape[0], step):
                yield whole.rows(start, start + step).dequantize().view(-1)


_MEND = "copy the whole model folder again"
