# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Public architectures, in and out: one small file for each, and the table of them.

A family reads and writes `config.json` and says which tensor of its files holds which of ours
(`Family` in `base.py`). To add one, write its file and add it to `FAMILIES`.
"""

import reprlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from openllm.checkpoint.families.base import Family
from openllm.checkpoint.families.gemma2 import Gemma2
from openllm.checkpoint.families.gemma3 import Gemma3
from openllm.checkpoint.families.gpt2 import GPT2
from openllm.checkpoint.families.llama import Llama
from openllm.checkpoint.families.mistral import Mistral
from openllm.checkpoint.families.olmo2 import Olmo2
from openllm.checkpoint.families.own import OWN, Own
from openllm.checkpoint.families.phi3 import Phi3
from openllm.checkpoint.families.qwen2 import Qwen2
from openllm.checkpoint.families.qwen3 import Qwen3
from openllm.checkpoint.families.smollm3 import SmolLM3
from openllm.core.errors import CheckpointError
from openllm.nn.config import ModelConfig

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Qwen3(),
        Llama(),
        Mistral(),
        GPT2(),
        Qwen2(),
        SmolLM3(),
        Olmo2(),
        Gemma2(),
        Gemma3(),
        Phi3(),
        Own(),
    )
}
"""By `model_type`; a model is written as the first that fits it."""


def architecture(cfg: ModelConfig) -> str:
    """The `model_type` that a new model is written as; `OWN` if no public one fits."""
    return next(name for name, family in FAMILIES.items() if family.fits(cfg))


def family_of(values: Mapping[str, Any], source: str) -> Family:
    """The family of a `config.json`; `source` names the file in errors.

    Raises:
        CheckpointError: it is none of `FAMILIES`.
    """
    kind = values.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is not None:
        return family
    if "text_config" in values:
        raise CheckpointError(
            f"{source} has the unsupported architecture {reprlib.repr(kind)}, whose language model "
            "is one part of several ('text_config'); give a checkpoint of the language model alone"
        )
    public = ", ".join(name for name in FAMILIES if name != OWN)
    raise CheckpointError(
        f"{source} has the unsupported architecture {reprlib.repr(kind)}; supported are {public}"
    )


def from_hf_config(values: Mapping[str, Any], source: str) -> ModelConfig:
    """Our config from the contents of a `config.json`.

    Raises:
        CheckpointError: an unknown architecture, a missing, invalid or unsupported value, or a
            key that may change the model and that OpenLLM does not know.
    """
    return family_of(values, source).read_config(values, source)


def to_hf_config(
    cfg: ModelConfig,
    *,
    bos: Any,
    eos: Any,
    pad: Any,
    dtype: str = "float32",
    family: str | None = None,
) -> dict[str, Any]:
    """The contents of `config.json`, with the keys current and older readers expect.

    Args:
        cfg: the architecture.
        bos, eos, pad: ids of control tokens; `eos` may be a list.
        dtype: of the weights.
        family: to write it as; default: `architecture(cfg)`.
    """
    chosen = FAMILIES[family or architecture(cfg)]
    return {
        "model_type": chosen.model_type,
        "architectures": [chosen.class_name],
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "dtype": dtype,
        "torch_dtype": dtype,
        "use_cache": True,
        **chosen.write(cfg),
    }


def to_hf_state(family: Family, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the names of a family."""
    return {link.theirs: link.join(state) for link in family.links(state)}
