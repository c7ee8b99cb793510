# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""`quantization_config` of a `config.json`: the part of compressed-tensors that we can express.

That format is read by vLLM and, with its library, by transformers: integers of 8 or 4 bits whose
zero is zero, one scale per row or per group of columns, chosen module by module.
"""

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from openllm.core.errors import CheckpointError
from openllm.nn.quantized import Scheme

KEY = "quantization_config"
METHOD = "compressed-tensors"
PACKED, PLAIN = "pack-quantized", "int-quantized"
"""Integers packed into words of 32 bits, or one in each byte (which int8 activations need)."""

_ALLOWED = {
    "num_bits": (8, 4),
    "type": ("int",),
    "symmetric": (True,),
    "strategy": ("group", "channel"),
    "dynamic": (None, False),
    "block_structure": (None,),
    "actorder": (None, False, "static", "weight"),  # where the files still name no order
}
"""Values of a scheme of weights that may stand there."""

_ACTIVATIONS = {
    "num_bits": 8,
    "type": "int",
    "symmetric": True,
    "strategy": "token",
    "dynamic": True,
}
"""The one supported scheme of activations: each token's vector has a scale of its own."""


@dataclass(frozen=True)
class Quantization:
    """What a `quantization_config` says.

    Attributes:
        schemes: all that some matrix may have; the files show which has which.
        dynamic: whether activations become 8-bit integers before a product.
    """

    schemes: frozenset[Scheme]
    dynamic: bool


def read_quantization(values: Mapping[str, Any]) -> Quantization | None:
    """What a `config.json` says of quantisation; none: nothing is quantised.

    Raises:
        CheckpointError: another method, or a scheme that is not supported.
    """
    config = values.get(KEY)
    if config is None:
        return None
    if not isinstance(config, Mapping) or config.get("quant_method") != METHOD:
        method = config.get("quant_method") if isinstance(config, Mapping) else config
        raise CheckpointError(
            f"'{KEY}' names the method {reprlib.repr(method)}; only {METHOD!r} is supported: use "
            "the checkpoint that it was made from"
        )
    groups = config.get("config_groups")
    if config.get("format") not in (PACKED, PLAIN) or not isinstance(groups, Mapping) or not groups:
        raise _refuse("format", config.get("format"), f"{PACKED!r} or {PLAIN!r}")
    if config.get("kv_cache_scheme") is not None:
        raise _refuse("kv_cache_scheme", config["kv_cache_scheme"], "null")
    if config.get("transform_config"):
        raise _refuse("transform_config", config["transform_config"], "null")
    sparsity = config.get("sparsity_config")
    if sparsity and not (isinstance(sparsity, Mapping) and sparsity.get("format") == "dense"):
        raise _refuse("sparsity_config", sparsity, "null")
    schemes, dynamic = set(), False
    for name, group in groups.items():
        if not isinstance(group, Mapping):
            raise _refuse(f"config_groups.{name}", group, "an object")
        schemes.add(_weights(group.get("weights"), f"config_groups.{name}.weights"))
        given = group.get("input_activations")
        dynamic = dynamic or given is not None
        _check_activations(given, f"config_groups.{name}.input_activations")
        if group.get("output_activations") is not None:
            raise _refuse(f"config_groups.{name}.output_activations", "not null", "null")
    return Quantization(frozenset(schemes), dynamic)


def _weights(given: Any, where: str) -> Scheme:
    if not isinstance(given, Mapping):
        raise _refuse(where, given, "an object")
    for name, allowed in _ALLOWED.items():
        value = given.get(name, True if name == "symmetric" else None)
        if not any(type(value) is type(item) and value == item for item in allowed):
            raise _refuse(f"{where}.{name}", value, " or ".join(map(repr, allowed)))
    size = given.get("group_size")
    if given["strategy"] == "channel":
        if size not in (None, -1):
            raise _refuse(f"{where}.group_size", size, "null, as the strategy is 'channel'")
        return Scheme(given["num_bits"], None)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise _refuse(f"{where}.group_size", size, "a positive integer")
    return Scheme(given["num_bits"], size)


def _check_activations(given: Any, where: str) -> None:
    if given is None:
        return
    found = {name: given.get(name) for name in _ACTIVATIONS} if isinstance(given, Mapping) else None
    if found != _ACTIVATIONS:
        raise _refuse(where, given, "8-bit integers scaled per token, or null")


def _refuse(name: str, given: Any, needed: str) -> CheckpointError:
    return CheckpointError(f"'{KEY}.{name}' is {reprlib.repr(given)}, but must be {needed}")


def write_quantization(
    modules: Mapping[str, Scheme], kept: Iterable[str], *, dynamic: Iterable[str] = ()
) -> dict[str, Any]:
    """The value of `quantization_config`.

    Args:
        modules: name in the files of each quantised module -> its scheme.
        kept: names of those whose matrix is left as it is.
        dynamic: those whose inputs become 8-bit integers.
    """
    rounded = frozenset(dynamic)
    sets: dict[tuple[Scheme, bool], list[str]] = {}
    for name, scheme in modules.items():
        sets.setdefault((scheme, name in rounded), []).append(name)
    groups = {}
    for number, ((scheme, active), names) in enumerate(sets.items()):
        strategy = "channel" if scheme.group is None else "group"
        weights = {
            "num_bits": scheme.bits,
            "type": "int",
            "symmetric": True,
            "strategy": strategy,
            "group_size": scheme.group,
            "dynamic": False,
        }
        groups[f"group_{number}"] = {
            "targets": names,
            "weights": weights,
            "input_activations": dict(_ACTIVATIONS) if active else None,
            "output_activations": None,
        }
    return {
        "quant_method": METHOD,
        "format": PLAIN if rounded else PACKED,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": list(kept),
        "kv_cache_scheme": None,
    }
