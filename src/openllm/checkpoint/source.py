# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A model folder, ours or of transformers: its architecture and weights, checked and unread.

Quantised matrices look like matrices in float32; `read_quantized` gives them as they are.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openllm.checkpoint.families.base import Family, Link, Shape
from openllm.checkpoint.families.registry import family_of
from openllm.checkpoint.quantization import read_quantization
from openllm.checkpoint.quantized import QuantizedWeights
from openllm.checkpoint.tensors import NAMES, PIECE_ELEMENTS, Planned
from openllm.checkpoint.weights import Weights, open_weights
from openllm.core.errors import CheckpointError
from openllm.core.files import read_json, recover_folder
from openllm.nn.config import ModelConfig
from openllm.nn.model import Transformer
from openllm.nn.quantized import QuantizedTensor, Scheme

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Dtypes that a weight may have."""

HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Source:
    """A folder that can be loaded or copied.

    Attributes:
        folder: where it is.
        values: the contents of `config.json`.
        family: that reads them.
        cfg: our config.
        model: our model, without weights.
        shapes: of our tensors.
        links: each tensor of theirs that is needed, and ours that it holds.
        names: name of a link's tensor -> its name in the files.
        weights: the files.
    """

    folder: Path
    values: dict[str, Any]
    family: Family
    cfg: ModelConfig
    model: Transformer
    shapes: dict[str, Shape]
    links: list[Link]
    names: dict[str, str]
    weights: Weights

    def read(self, link: Link) -> Tensor:
        """A tensor of theirs, in its own dtype.

        Raises:
            CheckpointError: it holds NaN or infinity.
        """
        name = self.names[link.theirs]
        tensor = self.weights.read(name)
        for piece in tensor.view(-1).split(PIECE_ELEMENTS):
            _check_finite(name, piece)
        return tensor

    def pieces(self, link: Link, dtype: torch.dtype) -> Iterator[Tensor]:
        """The elements of a tensor of theirs in another dtype, in pieces of bounded size.

        Raises:
            CheckpointError: it holds NaN or infinity, or does not fit into the dtype.
        """
        name = self.names[link.theirs]
        for piece in self.weights.pieces(name):
            _check_finite(name, piece)
            cast = piece.to(dtype)
            if cast is not piece and not _is_finite(cast):
                kind = str(dtype).removeprefix("torch.")
                raise CheckpointError(
                    f"{name!r} has values too large for {kind}; choose another --dtype"
                )
            yield cast

    def scheme(self, link: Link) -> Scheme | None:
        """How a tensor of theirs is quantised; none: it is not."""
        weights = self.weights
        if not isinstance(weights, QuantizedWeights):
            return None
        return weights.schemes.get(self.names[link.theirs])

    def stored(self, link: Link) -> Tensor | QuantizedTensor:
        """A tensor of theirs as it is in the files; quantised rows are those of our model.

        Raises:
            CheckpointError: it, or a scale, holds NaN or infinity.
        """
        name = self.names[link.theirs]
        if isinstance(self.weights, QuantizedWeights) and name in self.weights.schemes:
            return self.weights.quantized(name)
        return self.read(link)

    def dtype(self) -> torch.dtype:
        """That of most elements."""
        counts: dict[torch.dtype, int] = {}
        for name in self.names.values():
            stored = self.weights.tensors[name]
            counts[stored.dtype] = counts.get(stored.dtype, 0) + stored.size
        return max(counts, key=lambda dtype: counts[dtype])

    def planned(
        self, dtype: torch.dtype | None = None, count: Callable[[int], None] | None = None
    ) -> list[Planned]:
        """Their tensors, to be streamed to another folder.

        Args:
            dtype: of the copies; none: as they are.
            count: called with the bytes of each piece that was read.
        """
        planned = []
        for link in self.links:
            stored = self.weights.tensors[self.names[link.theirs]]
            kind = dtype or stored.dtype
            shape = link.shape(self.shapes)
            planned.append(Planned(link.theirs, kind, shape, _Pieces(self, link, kind, count)))
        return planned


@dataclass(frozen=True)
class _Pieces:
    """The pieces of a tensor, read when they are iterated over."""

    source: Source
    link: Link
    dtype: torch.dtype
    count: Callable[[int], None] | None

    def __iter__(self) -> Iterator[Tensor]:
        stored = self.source.weights.tensors[self.source.names[self.link.theirs]]
        for piece in self.source.pieces(self.link, self.dtype):
            yield piece
            if self.count is not None:
                self.count(len(piece) * stored.dtype.itemsize)


def _is_finite(piece: Tensor) -> bool:
    """As `isfinite().all()`, in one pass: NaN and infinity reach the least or greatest value."""
    return piece.numel() == 0 or all(bool(end.isfinite()) for end in piece.aminmax())


def _check_finite(name: str, piece: Tensor) -> None:
    if not _is_finite(piece):
        raise CheckpointError(
            f"the tensor {name!r} holds NaN or infinity; such a model answers nothing, so use "
            "another checkpoint"
        )


def read_config(folder: Path) -> tuple[dict[str, Any], Family, ModelConfig]:
    """The contents of `config.json`, and what they mean.

    Raises:
        CheckpointError: missing folder, missing or broken file, unknown architecture or key.
    """
    recover_folder(folder)
    mend = "give a model folder, such as RUN/model after 'openllm train'"
    path = folder / "config.json"
    values = read_json(path, CheckpointError, mend)
    family = family_of(values, str(path))
    return values, family, family.read_config(values, str(path))


def open_source(folder: Path, *, allow_pickle: bool = False) -> Source:
    """Open a model folder and check that its weights are those of its config.

    Raises:
        CheckpointError: as `read_config` and `open_weights`; or one error that names all tensors
            which are missing, not expected, of another shape or not of floating point.
    """
    values, family, cfg = read_config(folder)
    weights = open_weights(folder, allow_pickle=allow_pickle)
    misfit = f"{folder}: the weights do not match its config.json"
    if cfg.num_layers > len(weights.tensors):
        raise CheckpointError(
            f"{misfit}: {len(weights.tensors)} tensors cannot make {cfg.num_layers} layers"
        )
    try:
        with torch.device("meta"):
            model = Transformer(cfg)
    except (RuntimeError, TypeError, OverflowError) as error:  # sizes beyond 64 bits
        first = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{misfit}: {first}") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    links = family.links(shapes)
    if quantization := read_quantization(values):
        turned = [link.theirs for link in links if link.transposed]
        weights = QuantizedWeights(weights, quantization, turned)
    names = _names(family, [link.theirs for link in links], weights)
    source = Source(folder, values, family, cfg, model, shapes, links, names, weights)
    problems = _problems(source)
    if problems:
        raise CheckpointError(f"{misfit}: {'; '.join(problems)}")
    _check_tied_head(source)
    return source


def read_quantized(folder: Path) -> Iterator[tuple[str, Tensor | QuantizedTensor]]:
    """The tensors of a model folder under our names, one at a time, quantised ones as they are.

    Raises:
        CheckpointError: as `open_source`, at once; NaN or infinity, when the tensor is read.
    """
    source = open_source(folder)
    return (item for link in source.links for item in split_stored(source, link))


def split_stored(source: Source, link: Link) -> Iterator[tuple[str, Tensor | QuantizedTensor]]:
    """Our tensors in one of theirs, quantised ones as they are.

    Raises:
        CheckpointError: it holds NaN or infinity.
    """
    found = source.stored(link)
    if isinstance(found, Tensor):
        yield from link.split(found, source.shapes).items()
        return
    start = 0
    for name in link.ours:
        stop = start + source.shapes[name][0]
        yield name, found.rows(start, stop)
        start = stop


def _names(family: Family, wanted: list[str], weights: Weights) -> dict[str, str]:
    """Checkpoints of the bare model, without a head, lack the prefix."""
    bare = family.prefix and not any(name.startswith(family.prefix) for name in weights.tensors)
    return {name: name.removeprefix(family.prefix) if bare else name for name in wanted}


def _problems(source: Source) -> list[str]:
    tensors, names = source.weights.tensors, source.names
    known = set(names.values())
    allowed = re.compile(rf"(.*\.)?{source.family.buffers}")
    extra = [name for name in tensors if name not in known and not allowed.fullmatch(name)]
    if source.cfg.tie_embeddings and HEAD in extra:
        extra.remove(HEAD)
    shapes, kinds = [], []
    for link in source.links:
        stored = tensors.get(names[link.theirs])
        if stored is None:
            continue
        needed = link.shape(source.shapes)
        if stored.shape != needed:
            shapes.append(
                f"{names[link.theirs]} is {size_text(stored.shape)}, not {size_text(needed)}"
            )
        elif stored.dtype not in FLOATS:
            kinds.append(f"{names[link.theirs]} is {NAMES.get(stored.dtype, stored.dtype)}")
    missing = [name for name in names.values() if name not in tensors]
    return [
        f"{what}: {first_few(items)}"
        for what, items in (
            ("missing", missing),
            ("not expected", extra),
            ("of another shape", shapes),
            ("quantised or not numbers, which is not supported", kinds),
        )
        if items
    ]


def size_text(shape: Iterable[int]) -> str:
    """`(3, 4)` -> `3 x 4`."""
    return " x ".join(f"{size}" for size in shape) or "a single number"


def first_few(items: Sequence[str]) -> str:
    """The first ten of many names, for an error."""
    more = f" and {len(items) - 10} more" if len(items) > 10 else ""
    return ", ".join(item[:120] for item in items[:10]) + more


def _check_tied_head(source: Source) -> None:
    """A head in the files of a tied model must be the embedding."""
    tensors = source.weights.tensors
    if not source.cfg.tie_embeddings or HEAD not in tensors:
        return
    link = next(link for link in source.links if link.ours == ("embed_tokens.weight",))
    embedding = source.names[link.theirs]
    same = tensors[HEAD][1:3] == tensors[embedding][1:3]
    pairs = zip(source.weights.pieces(HEAD), source.weights.pieces(embedding), strict=True)
    if not same or not all(torch.equal(head, rows) for head, rows in pairs):
        raise CheckpointError(
            f"{source.folder}: config.json ties the head to the embedding, but {HEAD} differs from "
            f"{embedding}; set 'tie_word_embeddings' to false there if the head is meant to be used"
        )
