# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A family: how one public architecture writes its config and names its tensors."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from openllm.checkpoint.families.values import HARMLESS, Values
from openllm.checkpoint.quantization import KEY as QUANTIZATION
from openllm.checkpoint.quantization import read_quantization
from openllm.core.errors import CheckpointError, ConfigError
from openllm.nn.config import ModelConfig, ResearchConfig, RopeConfig

Shape = tuple[int, ...]

NAME = re.compile(r"(?:layers\.(?P<layer>\d+)\.)?(?P<module>.+)\.(?P<leaf>weight|bias)")


class Link(NamedTuple):
    """One tensor of theirs: one of ours, or several stacked along the first axis.

    Attributes:
        theirs: its name in their files.
        ours: names of our tensors, top to bottom.
        transposed: theirs is the transpose of the stack.
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """The shape of theirs, given the shapes of ours."""
        first = shapes[self.ours[0]]
        whole = (sum(shapes[name][0] for name in self.ours), *first[1:])
        return whole[::-1] if self.transposed else whole

    def join(self, state: Mapping[str, Tensor]) -> Tensor:
        """Ours -> theirs."""
        parts = [state[name] for name in self.ours]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole.T.contiguous() if self.transposed else whole

    def split(self, theirs: Tensor, shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
        """Theirs -> ours; parts are copies, so that they can be freed one by one."""
        whole = theirs.T if self.transposed else theirs
        if len(self.ours) == 1:
            return {self.ours[0]: whole.contiguous()}
        parts = whole.split([shapes[name][0] for name in self.ours])
        return {
            name: part.clone(memory_format=torch.contiguous_format)
            for name, part in zip(self.ours, parts, strict=True)
        }


class Family(ABC):
    """A public architecture.

    Attributes:
        model_type: its name in `config.json`.
        class_name: of the model class in transformers.
        kinds: of norm, position and MLP.
        harmless: keys of its config that change no logit, besides `HARMLESS`.
        prefix: of all its tensor names but the head's.
        layers: what stands before a layer's number in its tensor names.
        renamed: our module names -> theirs, where they differ.
        packed: modules of theirs -> ours that they stack.
        transposed: modules of theirs whose matrices are the transposes of ours.
        buffers: pattern of tensors that old files hold and that say nothing new.
    """

    model_type: ClassVar[str]
    class_name: ClassVar[str]
    kinds: ClassVar[tuple[str, str, str]] = ("rms", "rope", "swiglu")
    harmless: ClassVar[frozenset[str]] = frozenset()
    prefix: ClassVar[str] = "model."
    layers: ClassVar[str] = "layers"
    renamed: ClassVar[Mapping[str, str]] = {}
    packed: ClassVar[Mapping[str, Sequence[str]]] = {}
    transposed: ClassVar[frozenset[str]] = frozenset()
    buffers: ClassVar[str] = r"rotary_emb\.inv_freq"

    @abstractmethod
    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        """The keys of `config.json` that describe the architecture."""

    @abstractmethod
    def read(self, values: Values) -> dict[str, Any]:
        """Values of `ModelConfig`.

        Raises:
            CheckpointError: a missing or invalid value, or one that our model cannot express.
        """

    def read_config(self, values: Mapping[str, Any], source: str) -> ModelConfig:
        """Our config from the contents of a `config.json`; `source` names it in errors.

        Raises:
            CheckpointError: as `read`; or a key that may matter and that OpenLLM does not know.
        """
        given = Values(values)
        given.ignore(HARMLESS | self.harmless | {QUANTIZATION})
        try:
            read_quantization(values)
            read = self.read(given)
            given.finish()
        except CheckpointError as error:
            raise CheckpointError(f"{source}: {error}") from None
        try:
            return ModelConfig.parse(read, source)
        except ConfigError as error:
            raise CheckpointError(f"{error}; copy the file from its source again") from None

    def fits(self, cfg: ModelConfig) -> bool:
        """Whether reading what the family writes gives the same function."""
        kinds = (cfg.norm.kind, cfg.position.kind, cfg.mlp.kind)
        if kinds != self.kinds or cfg.research != ResearchConfig():
            return False
        try:
            again = self.read_config(self.write(cfg), "config")
        except CheckpointError:
            return False
        return canonical(again) == canonical(cfg)

    def links(self, ours: Iterable[str]) -> list[Link]:
        """Which tensor of theirs holds which of ours, in our order.

        A family with experts would add a kind of `Link` that stacks along a new axis.
        """
        place = {mine: (theirs, row) for theirs, names in self.packed.items()
                 for row, mine in enumerate(names)}  # fmt: skip
        found: dict[str, list[str]] = {}
        turned = set()
        for name in ours:
            match = NAME.fullmatch(name)
            assert match is not None, name
            module = match["module"]
            theirs = place[module][0] if module in place else self.renamed.get(module, module)
            layer = "" if match["layer"] is None else f"{self.layers}.{match['layer']}."
            prefix = "" if module == "lm_head" else self.prefix
            full = f"{prefix}{layer}{theirs}.{match['leaf']}"
            found.setdefault(full, []).append(name)
            if theirs in self.transposed and match["leaf"] == "weight":
                turned.add(full)
        return [Link(theirs, tuple(names), theirs in turned) for theirs, names in found.items()]


def multiple(values: Values, name: str, among: str, count: int) -> int:
    """The value `name` divided by `count`, which must leave no remainder."""
    whole = values.size(name)
    if whole % count:
        raise CheckpointError(f"'{name}' is {whole}, which is not a multiple of '{among}', {count}")
    return whole // count


def canonical(cfg: ModelConfig) -> ModelConfig:
    """The same function, written in one way; without what matters in training alone."""
    shape = cfg.attention
    layers = tuple(n for n in range(cfg.num_layers) if shape.window_of(n) is not None)
    everywhere = len(layers) == cfg.num_layers
    attention = shape.model_copy(
        update={
            "num_kv_heads": shape.kv_heads,
            "qk_norm_over": shape.qk_norm_over if shape.qk_norm else "head",
            "output_bias": shape.has_output_bias,
            "scale": shape.head_dim**-0.5 if shape.scale is None else shape.scale,
            "window": shape.window if layers else None,
            "window_layers": None if everywhere or not layers else layers,
        }
    )
    changes: dict[str, Any] = {"attention": attention, "dropout": 0.0, "init_residual": 1.0}
    rope = cfg.position
    if isinstance(rope, RopeConfig):
        theta = rope.window_theta
        if theta is None and rope.scaling is None:
            theta = rope.theta
        changes["position"] = rope.model_copy(
            update={
                "window_theta": theta if layers else None,
                "unrotated_layers": tuple(sorted(set(rope.unrotated_layers))),
            }
        )
    return cfg.model_copy(update=changes)
