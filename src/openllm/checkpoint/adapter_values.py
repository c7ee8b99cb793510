# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`adapter_config.json` of PEFT: what it says, and what of it we support.

PEFT has many features, each with a key that is null, false or empty where it is not used. So a key
that we do not know is refused only if it is used.
"""

import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from openllm.core.errors import CheckpointError

READ = frozenset(
    {
        "alpha_pattern",
        "bias",
        "exclude_modules",
        "init_lora_weights",
        "lora_alpha",
        "lora_dropout",
        "peft_type",
        "r",
        "rank_pattern",
        "target_modules",
        "use_dora",
        "use_rslora",
    }
)
HARMLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",  # these configs say how training began
        "ensure_weight_tying",
        "eva_config",
        "fan_in_fan_out",  # how the base stores its matrices, which its family knows
        "inference_mode",
        "layers_pattern",
        "loftq_config",
        "lora_ga_config",
        "megatron_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
    }
)
"""Keys that change nothing in what an adapter computes."""

KEPT_BASE = (True, False, "gaussian", "eva", "orthogonal", "mica")
"""Values of `init_lora_weights` that leave the base's weights as they are."""

MOST_ALPHA = 1e9
PLAIN = re.compile(r"\^?[\w.]+\$?")
ALL = "all-linear"


@dataclass(frozen=True)
class AdapterValues:
    """What `adapter_config.json` says of a LoRA adapter.

    Attributes:
        rank, alpha: of modules without a rank or alpha of their own.
        targets: names of modules, or of their last parts; or a text: `ALL`, or a pattern.
        excluded: names likewise, of what is no target after all; or a pattern.
        ranks, alphas: of some modules; their names may lack a beginning.
        rank_stabilised: whether scale is alpha / sqrt(rank).
        dora: whether rows have lengths of their own.
        dropout: of the inputs of A, in training.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] | str
    excluded: tuple[str, ...] | str = ()
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    rank_stabilised: bool = False
    dora: bool = False
    dropout: float = 0.0

    def rank_of(self, module: str) -> int:
        """The rank of a module, by its full name."""
        return next((rank for key, rank in self.ranks.items() if _fits(key, module)), self.rank)

    def scale_of(self, module: str) -> float:
        """The factor on B A of a module, by its full name."""
        found = (alpha for key, alpha in self.alphas.items() if _fits(key, module))
        rank = self.rank_of(module)
        return next(found, self.alpha) / (math.sqrt(rank) if self.rank_stabilised else rank)

    def is_target(self, module: str) -> bool | None:
        """Whether a module must have an adapter, by its full name; none: a pattern says it.

        Patterns are not evaluated: one from a stranger could take forever.
        """
        if isinstance(self.excluded, str) or (isinstance(self.targets, str) and not self._all):
            return None
        out = any(_fits(name, module) for name in self.excluded)
        return not out and (self._all or any(_fits(name, module) for name in self.targets))

    @property
    def _all(self) -> bool:
        return isinstance(self.targets, str) and self.targets.lower() == ALL

    def dump(self, base: str | None, *, transposed: bool) -> dict[str, Any]:
        """The contents of `adapter_config.json`.

        Args:
            base: name or path of the base.
            transposed: whether the family stores matrices transposed.
        """
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "revision": None,
            "inference_mode": True,
            "r": self.rank,
            "lora_alpha": _number(self.alpha),
            "lora_dropout": self.dropout,
            "target_modules": list(self.targets),
            "rank_pattern": dict(self.ranks),
            "alpha_pattern": {name: _number(alpha) for name, alpha in self.alphas.items()},
            "use_rslora": self.rank_stabilised,
            "use_dora": self.dora,
            "fan_in_fan_out": transposed,
            "bias": "none",
            "init_lora_weights": True,
            "modules_to_save": None,
        }


def read_values(given: Mapping[str, Any], source: str) -> AdapterValues:
    """Understand the contents of `adapter_config.json`; `source` names it in errors.

    Raises:
        CheckpointError: not LoRA, an impossible value, or a feature that is not supported.
    """
    try:
        _refuse_unsupported(given)
        targets = given.get("target_modules")
        excluded = given.get("exclude_modules") or ()
        return AdapterValues(
            rank=_rank("r", given.get("r", 8)),
            alpha=_alpha("lora_alpha", given.get("lora_alpha", 8)),
            targets=_names("target_modules", targets),
            excluded=_names("exclude_modules", excluded),
            ranks={key: _rank(key, value) for key, value in _pattern(given, "rank_pattern")},
            alphas={key: _alpha(key, value) for key, value in _pattern(given, "alpha_pattern")},
            rank_stabilised=_flag(given, "use_rslora"),
            dora=_flag(given, "use_dora"),
            dropout=_dropout(given.get("lora_dropout", 0.0)),
        )
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None


def _refuse_unsupported(given: Mapping[str, Any]) -> None:
    kind = given.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"'peft_type' is {reprlib.repr(kind)}, but only LORA is supported (with rsLoRA and "
            "DoRA); merge the adapter into its base with PEFT, and import the result"
        )
    used = [
        key for key, value in given.items()
        if key not in READ | HARMLESS and value is not None and value is not False
        and value not in ("", [], {})
    ]  # fmt: skip
    if given.get("bias", "none") != "none":
        used.append("bias")
    if used:
        raise CheckpointError(
            f"it uses {', '.join(reprlib.repr(key) for key in sorted(used))}, which OpenLLM does "
            "not support; merge the adapter into its base with PEFT, and import the result"
        )
    start = given.get("init_lora_weights", True)
    if start not in KEPT_BASE:
        raise CheckpointError(
            f"'init_lora_weights' is {reprlib.repr(start)}, which changes the weights of the base "
            "too; convert the adapter to plain LoRA with PEFT "
            "(save_pretrained with path_initial_model_for_weight_conversion)"
        )


def _fits(name: str, module: str) -> bool:
    """Whether a name, which may lack a beginning unless it starts with ^, is that of a module."""
    short = name.removeprefix("^").removesuffix("$")
    return module == short or (not name.startswith("^") and module.endswith(f".{short}"))


def _names(key: str, value: Any) -> tuple[str, ...] | str:
    if isinstance(value, str):
        return value
    if isinstance(value, Iterable) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise CheckpointError(f"{key!r} must be a list of names or a text; copy the file again")


def _pattern(given: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    value = given.get(key) or {}
    if not isinstance(value, dict):
        raise CheckpointError(f"{key!r} must be a JSON object; copy the file again")
    for name in value:
        if not PLAIN.fullmatch(name):
            raise CheckpointError(
                f"{key!r} has the pattern {reprlib.repr(name)}; only names of modules are "
                "supported, such as layers.0.self_attn.q_proj"
            )
    return list(value.items())


def _rank(key: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 2**20:
        raise CheckpointError(
            f"{key!r} is {reprlib.repr(value)}, which is no rank; copy the file again"
        )
    return value


def _alpha(key: str, value: Any) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not abs(value) <= MOST_ALPHA:  # also: NaN
        raise CheckpointError(
            f"{key!r} is {reprlib.repr(value)}, not a number that makes sense; copy the file again"
        )
    return float(value)


def _dropout(value: Any) -> float:
    rate = _alpha("lora_dropout", value)
    if not 0 <= rate < 1:
        raise CheckpointError(f"'lora_dropout' is {value}; it must be at least 0 and below 1")
    return rate


def _flag(given: Mapping[str, Any], key: str) -> bool:
    value = given.get(key, False)
    if value is not None and not isinstance(value, bool):
        raise CheckpointError(f"{key!r} is {reprlib.repr(value)}; it must be true or false")
    return bool(value)


def _number(value: float) -> int | float:
    """Without the noise of dividing and multiplying; whole where it can be, as PEFT wants."""
    short = float(f"{value:.12g}")
    return int(short) if short.is_integer() else short
