# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Several adapters beside one base model, chosen for each row of a forward pass."""

# K in, N out, R rank, M rows (tokens)

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openllm.core.errors import ConfigError
from openllm.nn.config import ModelConfig
from openllm.nn.lora import Adapter, LowRank, adaptable
from openllm.nn.model import Transformer
from openllm.transform.lora import check_fit

NONE = -1
"""The index of rows without an adapter."""

INSTEAD = (
    "merge it into its base with 'openllm merge', or run the base without the compiled kernels"
)

Triple = tuple[Tensor, Tensor, float]
"""A (R, K), B (N, R) and the scale of their product."""


class _Slot(NamedTuple):
    """A loaded adapter: in float32 on the model's device, with DoRA's factors by matrix."""

    name: str
    adapter: Adapter
    factors: Mapping[str, Tensor]
    version: int


class AdapterBank:
    """Adapters by name; each has an index that stays the same until it is unloaded.

    Not for several threads at a time: load and unload between forward passes.

    Args:
        model: the base. One on the meta device, without weights, serves for `matrices`.
    """

    def __init__(self, model: Transformer) -> None:
        self._model = model
        self._device = model.embed_tokens.weight.device
        self._slots: list[_Slot | None] = []
        self._matrices: dict[str, list[Triple]] = {}
        self._loads = 0

    @property
    def cfg(self) -> ModelConfig:
        """The architecture of the base."""
        return self._model.cfg

    @property
    def names(self) -> list[str]:
        """Of the adapters, in the order of their indices."""
        return [slot.name for slot in self._slots if slot is not None]

    @property
    def num_bytes(self) -> int:
        """Memory that the adapters take."""
        slots = [slot for slot in self._slots if slot is not None]
        factors = sum(factor.nbytes for slot in slots for factor in slot.factors.values())
        return factors + sum(slot.adapter.num_bytes for slot in slots)

    def load(self, name: str, adapter: Adapter) -> int:
        """Add an adapter, or replace the one of this name; returns its index.

        Raises:
            ConfigError: it does not fit the model, or is DoRA and the model has no weights.
        """
        check_fit(self._model, adapter)
        kept = self._kept(adapter)
        slot = _Slot(name, kept, self._factors(name, kept), self._next_version())
        named = [place for place, old in enumerate(self._slots) if old and old.name == name]
        free = [place for place, old in enumerate(self._slots) if old is None]
        place = next(iter([*named, *free]), len(self._slots))
        self._slots[place : place + 1] = [slot]
        self._matrices.clear()
        return place

    def unload(self, name: str) -> None:
        """Remove an adapter; its index is free for the next one.

        Raises:
            ConfigError: there is none of this name.
        """
        self._slots[self.index(name)] = None
        self._matrices.clear()

    @contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """If the block fails, the adapters and their indices are again as they were before it."""
        before = list(self._slots)
        try:
            yield
        except BaseException:
            self._slots = before
            self._matrices.clear()
            raise

    def refresh(self) -> None:
        """Take note that the weights of the base have changed: what DoRA does depends on them."""
        for place, slot in enumerate(self._slots):
            if slot is not None:
                factors = self._factors(slot.name, slot.adapter)
                version = self._next_version()
                self._slots[place] = slot._replace(factors=factors, version=version)

    def index(self, name: str) -> int:
        """The index of an adapter, by which rows choose it.

        Raises:
            ConfigError: there is none of this name.
        """
        for place, slot in enumerate(self._slots):
            if slot is not None and slot.name == name:
                return place
        known = ", ".join(self.names) or "none"
        raise ConfigError(f"there is no adapter {name!r}; loaded: {known}")

    def version(self, name: str) -> int:
        """A number that no other load has had: a key for what was computed with the adapter.

        Raises:
            ConfigError: there is none of this name.
        """
        return self._slot(self.index(name)).version

    def matrices(self, name: str) -> list[Triple]:
        """What each adapter adds to one matrix of the model, in the order of indices.

        Free indices and adapters that leave the matrix alone have rank 0. The list and its
        tensors (float32, contiguous) stay the same until `load` or `unload`.

        Args:
            name: of the matrix in the model's state dict.

        Raises:
            ConfigError: an adapter is DoRA, which does not just add.
        """
        if name not in self._matrices:
            self._matrices[name] = [self._triple(slot, name) for slot in self._slots]
        return self._matrices[name]

    @contextmanager
    def rows(self, indices: Sequence[int], *, exact: bool = False) -> Iterator[None]:
        """Forward passes inside use these adapters; other rows keep their bits.

        Args:
            indices: of the adapter of each row, or `NONE`. Either of the rows of the batch, or of
                all tokens, if there are as many of them.
            exact: compute each adapter for all tokens and keep what is wanted, so that a token's
                bits depend on the number of tokens alone, not on who else has its adapter.

        Raises:
            ConfigError: no adapter has such an index, or the model is compiled.
        """
        slots = {index: self._slot(index) for index in sorted(set(indices) - {NONE})}
        if any(getattr(module, "_compiled_call_impl", None) for module in self._model.modules()):
            raise ConfigError(
                "a compiled model cannot switch adapters between steps; load it without compile"
            )
        rows = _Rows(indices, self._device, exact)
        with ExitStack() as stack:
            for module_name, module in adaptable(self._model).items():
                name = f"{module_name}.weight"
                parts = {
                    index: (slot.adapter.changes[name], slot.factors.get(name))
                    for index, slot in slots.items()
                    if name in slot.adapter.changes
                }
                if parts:
                    stack.callback(module.register_forward_hook(_Hook(parts, rows)).remove)
            yield

    def _next_version(self) -> int:
        self._loads += 1
        return self._loads

    def _slot(self, index: int) -> _Slot:
        slot = self._slots[index] if 0 <= index < len(self._slots) else None
        if slot is None:
            raise ConfigError(f"no adapter has the index {index}; load it again")
        return slot

    def _kept(self, adapter: Adapter) -> Adapter:
        """In float32, where the model is."""
        device = "cpu" if self._device.type == "meta" else self._device
        changes = {}
        for name, change in adapter.changes.items():
            parts = [
                part.detach().to(device, torch.float32).contiguous() for part in change.tensors()
            ]
            magnitude_N = parts[2] if len(parts) > 2 else None
            changes[name] = LowRank(parts[0], parts[1], change.scale, magnitude_N)
        return Adapter(changes, adapter.rank_stabilised, adapter.dropout)

    def _factors(self, name: str, adapter: Adapter) -> dict[str, Tensor]:
        """DoRA's factors of rows."""
        lengthened = {n: c for n, c in adapter.changes.items() if c.magnitude_N is not None}
        if lengthened and self._device.type == "meta":
            raise ConfigError(f"the adapter {name!r} is DoRA, which needs the weights; {INSTEAD}")
        return {
            matrix: change.row_factors(self._model.get_parameter(matrix).detach())
            for matrix, change in lengthened.items()
        }

    def _triple(self, slot: _Slot | None, name: str) -> Triple:
        change = None if slot is None else slot.adapter.changes.get(name)
        if slot is None or change is None:
            height, width = self._model.get_parameter(name).shape
            return torch.empty(0, width), torch.empty(height, 0), 0.0
        if change.magnitude_N is not None:
            raise ConfigError(f"the adapter {slot.name!r} is DoRA, not a plain sum; {INSTEAD}")
        return change.a_RK, change.b_NR, change.scale


class _Rows:
    """Which tokens have which adapter."""

    def __init__(self, indices: Sequence[int], device: torch.device, exact: bool) -> None:
        self.exact = exact
        self._indices = torch.tensor(indices, device=device)
        self._found: dict[tuple[int, int], Tensor] = {}

    def of(self, index: int, tokens: int) -> Tensor:
        """The tokens with the adapter `index`, of so many in all."""
        if (index, tokens) not in self._found:
            each, left = divmod(tokens, len(self._indices))
            if left:
                raise ValueError(
                    f"{tokens} tokens cannot share {len(self._indices)} indices of adapters"
                )
            mine = (self._indices == index).repeat_interleave(each)
            self._found[index, tokens] = mine.nonzero()[:, 0]
        return self._found[index, tokens]


class _Hook:
    """Changes the output of a linear layer, in place, for some of the tokens."""

    def __init__(self, parts: Mapping[int, tuple[LowRank, Tensor | None]], rows: _Rows) -> None:
        self._parts, self._rows = parts, rows

    def __call__(self, module: nn.Linear, inputs: tuple[Tensor], y: Tensor) -> None:
        x_MK, y_MN = inputs[0].flatten(0, -2), y.view(-1, y.shape[-1])
        for index, (change, factors_N) in self._parts.items():
            mine = self._rows.of(index, len(x_MK))
            read = x_MK if self._rows.exact else x_MK[mine]
            added = change.scale * F.linear(F.linear(read.float(), change.a_RK), change.b_NR)
            if self._rows.exact:
                added = added[mine]
            old = y_MN[mine].float()
            if factors_N is not None:
                product = old if module.bias is None else old - module.bias.float()
                added = (factors_N - 1) * product + factors_N * added
            y_MN[mine] = (old + added).to(y.dtype)
