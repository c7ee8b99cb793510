# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Our own format, for models that no public architecture expresses; only OpenLLM reads it."""

from collections.abc import Iterable
from typing import Any

from openllm.checkpoint.families.base import Family, Link
from openllm.checkpoint.families.values import HARMLESS, Values
from openllm.nn.config import ModelConfig

OWN = "openllm"
"""The `model_type` of a model that no public architecture expresses."""


class Own(Family):
    """Our config and our names."""

    model_type = OWN
    class_name = "OpenLLMForCausalLM"
    harmless = HARMLESS | {"initializer_range", "tie_word_embeddings", "vocab_size"}

    def read(self, values: Values) -> dict[str, Any]:
        """Our config, which stands in the key `openllm`."""
        given = values.take(OWN)
        if OWN not in values:
            raise values.refuse(OWN, "must be the config of the model")
        if not isinstance(given, dict):
            raise values.refuse(OWN, "must be a JSON object")
        return given

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        """Our config."""
        return {
            "vocab_size": cfg.vocab_size,
            "tie_word_embeddings": cfg.tie_embeddings,
            "initializer_range": cfg.init_std,
            OWN: cfg.dump(),
        }

    def fits(self, cfg: ModelConfig) -> bool:
        """Any model."""
        return True

    def links(self, ours: Iterable[str]) -> list[Link]:
        """The same names."""
        return [Link(name, (name,)) for name in ours]
