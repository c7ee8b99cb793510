# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Rotary positions in a `config.json`, the way transformers 4 and 5 write them.

Version 4 has `rope_theta` at the root and `rope_scaling` without it; version 5 has both in
`rope_parameters`. We write all three, and refuse a file in which they differ.
"""

from collections.abc import Sequence
from typing import Any

from openllm.checkpoint.families.values import Values
from openllm.core.errors import CheckpointError
from openllm.nn.config import RopeConfig
from openllm.nn.rope_scaling import (
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    RopeScaling,
    YarnScaling,
)

ORIGINAL = "original_max_position_embeddings"
SCALINGS = ("linear", "llama3", "yarn")
"""The kinds of scaling that all families but Phi-3 share."""


def read_rope(
    values: Values, *, theta: float, max_positions: int, scalings: Sequence[str] = SCALINGS
) -> dict[str, Any]:
    """Theta, scaling and rotated share of a config, as values of `RopeConfig`.

    Args:
        values: the config.
        theta: if the config names none.
        max_positions: the longest context.
        scalings: supported kinds.

    Raises:
        CheckpointError: an unsupported kind, or values that contradict each other.
    """
    given = [values.inner(name) for name in ("rope_scaling", "rope_parameters")]
    root_theta = values.take("rope_theta")
    root_share = values.take("partial_rotary_factor")
    root_original = values.take(ORIGINAL)
    found = [
        _read_parameters(
            part, theta=theta, max_positions=max_positions, original=root_original,
            scalings=scalings,
        )
        for part in given
        if part is not None
    ]  # fmt: skip
    if not found:
        found = [{"theta": None, "scaling": None, "fraction": None}]
    thetas = {item["theta"] for item in found} - {None}
    if root_theta is not None:
        thetas.add(values.number("rope_theta"))
    shares = {item["fraction"] for item in found} - {None}
    if root_share is not None:
        shares.add(values.number("partial_rotary_factor"))
    scales = [item["scaling"] for item in found]
    for name, options in (("rope_theta", thetas), ("partial_rotary_factor", shares)):
        if len(options) > 1:
            low, high = sorted(options)[:2]
            raise CheckpointError(f"'{name}' is {low:g} in one place and {high:g} in another")
    if scales[0] != scales[-1]:
        raise CheckpointError("'rope_scaling' and 'rope_parameters' contradict each other")
    return {
        "kind": "rope",
        "theta": next(iter(thetas), theta),
        "scaling": scales[0],
        "fraction": next(iter(shares), 1.0),
    }


def _read_parameters(
    values: Values, *, theta: float, max_positions: int, original: Any, scalings: Sequence[str]
) -> dict[str, Any]:
    kind = values.take("rope_type", values.take("type"))
    values.take("type")
    kind = "default" if kind is None else kind
    # files of the first Phi-3 models name it after earlier drafts
    if "longrope" in scalings and kind in ("su", "yarn"):
        kind = "longrope"
    found = {
        "theta": values.number("rope_theta") if "rope_theta" in values else None,
        "fraction": values.number("partial_rotary_factor")
        if "partial_rotary_factor" in values
        else None,
        "scaling": None,
    }
    if kind != "default":
        if kind not in scalings:
            supported = ", ".join(("default", *scalings))
            raise values.refuse(
                "rope_type" if "rope_type" in values else "type", f"supported are {supported}"
            )
        found["scaling"] = _read_scaling(kind, values, max_positions, original)
    values.take(ORIGINAL)
    values.finish()
    return found


def _read_scaling(kind: str, values: Values, max_positions: int, original: Any) -> dict[str, Any]:
    if kind == "linear":
        return {"kind": kind, "factor": values.number("factor")}
    given = values.size(ORIGINAL, original if isinstance(original, int) else max_positions)
    if original is not None and given != original:
        raise values.refuse(ORIGINAL, f"at the root of the file it is {original!r}")
    if kind == "llama3":
        return {
            "kind": kind,
            "factor": values.number("factor"),
            "low_freq_factor": values.number("low_freq_factor"),
            "high_freq_factor": values.number("high_freq_factor"),
            "original_max_positions": given,
        }
    common = {
        "kind": kind,
        "factor": values.number("factor", max_positions / given),
        "original_max_positions": given,
        "attention_factor": values.number_or_none("attention_factor"),
    }
    if kind == "longrope":
        return common | {name: _list(values, name) for name in ("short_factor", "long_factor")}
    return common | {
        "beta_fast": values.number("beta_fast", 32.0),
        "beta_slow": values.number("beta_slow", 1.0),
        "mscale": _weight(values, "mscale"),
        "mscale_all_dim": _weight(values, "mscale_all_dim"),
        "truncate": values.flag("truncate", True),
    }


def _weight(values: Values, name: str) -> float | None:
    """A number that may be zero, which means the same as none."""
    return values.number_or_none(name) if values.take(name) else None


def _list(values: Values, name: str) -> list[float]:
    given = values.take(name)
    numbers = isinstance(given, list) and all(
        isinstance(item, int | float) and not isinstance(item, bool) for item in given
    )
    if not numbers:
        raise values.refuse(name, "must be a list of numbers")
    return given


def write_rope(rope: RopeConfig) -> dict[str, Any]:
    """The keys of a config for both versions of transformers."""
    scaling = None if rope.scaling is None else write_scaling(rope.scaling)
    parameters = {**(scaling or {"rope_type": "default"}), "rope_theta": rope.theta}
    keys: dict[str, Any] = {"rope_theta": rope.theta, "rope_parameters": parameters}
    return keys if scaling is None else keys | {"rope_scaling": scaling}


def write_scaling(scaling: RopeScaling) -> dict[str, Any]:
    """A scaling, without theta."""
    keys: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    match scaling:
        case LinearScaling():
            return keys
        case Llama3Scaling():
            keys["low_freq_factor"] = scaling.low_freq_factor
            keys["high_freq_factor"] = scaling.high_freq_factor
            keys[ORIGINAL] = scaling.original_max_positions
            return keys
        case LongRopeScaling():
            optional = {"attention_factor": scaling.attention_factor}
            keys["short_factor"] = list(scaling.short_factor)
            keys["long_factor"] = list(scaling.long_factor)
        case YarnScaling():
            names = ("attention_factor", "mscale", "mscale_all_dim")
            optional = {name: getattr(scaling, name) for name in names}
            keys["beta_fast"] = scaling.beta_fast
            keys["beta_slow"] = scaling.beta_slow
            if not scaling.truncate:
                keys["truncate"] = False
    keys[ORIGINAL] = scaling.original_max_positions
    return keys | {name: value for name, value in optional.items() if value is not None}
