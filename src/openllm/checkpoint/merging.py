# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Weights of a model folder with an adapter merged into them, one tensor in memory at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from openllm.checkpoint.families.base import Link
from openllm.checkpoint.source import Source
from openllm.checkpoint.tensors import Planned
from openllm.core.errors import CheckpointError
from openllm.nn.lora import Adapter, LowRank


def merged_tensors(
    source: Source, adapter: Adapter, dtype: torch.dtype | None = None
) -> dict[str, Planned]:
    """The tensors that an adapter changes, by their names in the files of the family.

    Args:
        source: an open folder, which the adapter fits.
        adapter: what to merge, computed in float32.
        dtype: of the result; none: as the tensors are.
    """
    found = {}
    for link in source.links:
        changes = {name: adapter.changes[name] for name in link.ours if name in adapter.changes}
        if changes:
            kind = dtype or source.weights.tensors[source.names[link.theirs]].dtype
            pieces = _Merged(source, link, changes, kind)
            found[link.theirs] = Planned(link.theirs, kind, link.shape(source.shapes), pieces)
    return found


@dataclass(frozen=True)
class _Merged:
    """One tensor of theirs, computed when it is iterated over."""

    source: Source
    link: Link
    changes: Mapping[str, LowRank]
    dtype: torch.dtype

    def __iter__(self) -> Iterator[Tensor]:
        state = self.link.split(self.source.read(self.link), self.source.shapes)
        for name, change in self.changes.items():
            state[name] = change.merge(state[name])
        whole = self.link.join({name: tensor.to(self.dtype) for name, tensor in state.items()})
        if not bool(whole.isfinite().all()):
            raise CheckpointError(
                f"{self.link.theirs} with the adapter has values too large for "
                f"{str(self.dtype).removeprefix('torch.')}; choose another --dtype"
            )
        yield whole
