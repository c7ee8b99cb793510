# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Adapters by the modules of a family, some of which stack several of our matrices.

Where they do (Phi-3, GPT-2), the parts of an adapter share A, and each has its rows of B.
"""

# K in, N out, R rank

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from openllm.checkpoint.adapter_values import AdapterValues
from openllm.checkpoint.families.base import Family, Link, Shape
from openllm.checkpoint.source import read_config
from openllm.core.errors import CheckpointError
from openllm.nn.config import ModelConfig
from openllm.nn.lora import Adapter, LowRank, adaptable
from openllm.nn.model import Transformer


class Base(NamedTuple):
    """What an adapter must fit.

    Attributes:
        family: names the modules.
        shapes: of our matrices that can have an adapter.
        modules: name of each module of theirs that can -> the link to our matrices.
    """

    family: Family
    shapes: dict[str, Shape]
    modules: dict[str, Link]

    @classmethod
    def of(cls, cfg: ModelConfig, family: Family) -> "Base":
        """From a config alone; no weights are read."""
        with torch.device("meta"):
            found = adaptable(Transformer(cfg))
        shapes = {f"{name}.weight": tuple(module.weight.shape) for name, module in found.items()}
        links = {link.theirs.removesuffix(".weight"): link for link in family.links(shapes)}
        return cls(family, shapes, links)

    @classmethod
    def read(cls, folder: Path) -> "Base":
        """From the `config.json` of a model folder.

        Raises:
            CheckpointError: missing or broken, or an unknown architecture.
        """
        _, family, cfg = read_config(folder)
        return cls.of(cfg, family)

    def size(self, module: str) -> tuple[int, int]:
        """(N, K) of a module of theirs."""
        link = self.modules[module]
        return sum(self.shapes[ours][0] for ours in link.ours), self.shapes[link.ours[0]][1]

    def split(self, module: str, whole: LowRank) -> dict[str, LowRank]:
        """The change of a module of theirs -> those of our matrices, which share A."""
        names = self.modules[module].ours
        if len(names) == 1:
            return {names[0]: whole}
        rows = [self.shapes[name][0] for name in names]
        lengths: Sequence[Tensor | None] = [None] * len(names)
        if whole.magnitude_N is not None:
            lengths = [part.clone() for part in whole.magnitude_N.split(rows)]
        return {
            name: LowRank(whole.a_RK, b_NR.clone(), whole.scale, magnitude_N)
            for name, b_NR, magnitude_N in zip(names, whole.b_NR.split(rows), lengths, strict=True)
        }

    def join(self, changes: Mapping[str, LowRank]) -> dict[str, LowRank]:
        """Changes of our matrices -> those of modules of theirs.

        Raises:
            CheckpointError: a matrix that the base does not have, or DoRA on a part of a stack.
        """
        if missing := set(changes) - set(self.shapes):
            raise CheckpointError(
                f"the adapter changes {min(missing)}, which the base cannot have changed; use the "
                "base that the adapter was made for"
            )
        joined = {}
        for module, link in self.modules.items():
            parts = {name: changes[name] for name in link.ours if name in changes}
            if len(link.ours) == 1 and parts:
                joined[module] = parts[link.ours[0]]
            elif parts:
                joined[module] = self._stack(module, parts)
        return joined

    def _stack(self, module: str, parts: Mapping[str, LowRank]) -> LowRank:
        names = self.modules[module].ours
        lengths = [part.magnitude_N for part in parts.values() if part.magnitude_N is not None]
        if lengths and len(lengths) < len(names):
            raise CheckpointError(
                f"{module} stacks {', '.join(names)}; DoRA must change all of them or none"
            )
        magnitude_N = torch.cat(lengths) if lengths else None
        given = list(parts.values())
        first = given[0]
        shared = len(given) == len(names) and all(
            part.scale == first.scale and torch.equal(part.a_RK, first.a_RK) for part in given
        )
        if shared:
            b_NR = torch.cat([part.b_NR for part in given])
            return LowRank(first.a_RK, b_NR, first.scale, magnitude_N)
        # each part has columns of its own in B, and zeros in those of the others
        b_NR = first.b_NR.new_zeros(self.size(module)[0], sum(part.rank for part in given))
        row = column = 0
        for name in names:
            if name in parts:
                part = parts[name]
                block = part.b_NR * (part.scale / first.scale)
                b_NR[row : row + len(block), column : column + part.rank] = block
                column += part.rank
            row += self.shapes[name][0]
        return LowRank(torch.cat([part.a_RK for part in given]), b_NR, first.scale, magnitude_N)

    def describe(self, joined: Mapping[str, LowRank], adapter: Adapter) -> AdapterValues:
        """What `adapter_config.json` must say of these modules."""
        ranks = {module: change.rank for module, change in joined.items()}
        alphas = {
            module: change.scale
            * (math.sqrt(change.rank) if adapter.rank_stabilised else change.rank)
            for module, change in joined.items()
        }
        rank, alpha = (Counter(found.values()).most_common(1)[0][0] for found in (ranks, alphas))
        return AdapterValues(
            rank=int(rank),
            alpha=alpha,
            targets=tuple(self._targets(joined)),
            ranks={module: value for module, value in ranks.items() if value != rank},
            alphas={module: value for module, value in alphas.items() if value != alpha},
            rank_stabilised=adapter.rank_stabilised,
            dora=any(change.magnitude_N is not None for change in joined.values()),
            dropout=adapter.dropout,
        )

    def _targets(self, joined: Mapping[str, LowRank]) -> list[str]:
        """The shortest ends of names that mean these modules and no others."""
        targets: dict[str, None] = {}
        for module in joined:
            words = module.split(".")
            for count in range(1, len(words) + 1):
                end = ".".join(words[-count:])
                meant = [name for name in self.modules if f".{name}".endswith(f".{end}")]
                if all(name in joined for name in meant):
                    targets.setdefault(end)
                    break
        return list(targets)
