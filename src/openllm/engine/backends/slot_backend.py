# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A backend over a runtime that keeps texts in slots: our scheduler, sampler, structures."""

from openllm.core.errors import ConfigError
from openllm.engine.assemble import cache_tokens
from openllm.engine.backend import BackendInfo
from openllm.engine.backends.local import LocalBackend
from openllm.engine.config import EngineConfig
from openllm.engine.core import ModelEngine
from openllm.engine.request import Prompt
from openllm.engine.runners.slots import SlotModel, SlotRunner
from openllm.nn.lora import Adapter
from openllm.text.chat import ChatTemplate
from openllm.text.tokenizer import Tokenizer
from openllm.transform.adapter_bank import AdapterBank

MOST_SLOTS = 8
"""Such a runtime gains little from more texts at a time, and each takes the memory of a context."""


class NoAdapters(AdapterBank):
    """The adapters of a model that cannot have any."""

    def __init__(self) -> None:
        self._slots = []
        self._matrices = {}

    def load(self, name: str, adapter: Adapter) -> int:
        """See `AdapterBank.load`.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "an exported model takes no adapters; merge them into the model and export it again"
        )


class SlotBackend(LocalBackend):
    """A backend over a foreign runtime."""

    def __init__(
        self,
        model: SlotModel,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        info: BackendInfo,
        cfg: EngineConfig | None = None,
        *,
        slots: int,
    ) -> None:
        """Run a model for up to `slots` texts at a time; more requests wait.

        Raises:
            ConfigError: the tokenizer is not the model's, or a setting is not for such a model.
        """
        cfg = cfg or EngineConfig()
        if cfg.precision != "auto" or cfg.speculation is not None:
            raise ConfigError(
                f"{info.kind} runs a file in the precision that it has, and without speculation; "
                "leave these settings out"
            )
        if model.vocab_size < tokenizer.vocab_size:
            raise ConfigError(
                f"the model's vocabulary size is {model.vocab_size}, but the tokenizer's is "
                f"{tokenizer.vocab_size}; use the tokenizer that the model was trained with"
            )
        self._model = model
        engine = ModelEngine(
            SlotRunner(model),
            tokenizer,
            max_positions=model.max_positions,
            vocab_size=model.vocab_size,
            num_blocks=slots,
            cfg=cfg.model_copy(
                update={
                    "block_size": model.max_positions,
                    "max_sequences": slots,
                    "prefix_cache": False,
                    "preemption": "recompute",
                }
            ),
            bank=NoAdapters(),
        )
        super().__init__(engine, tokenizer, template, info)

    async def embed(self, prompt: Prompt, *, adapter: str | None = None) -> list[float]:
        """See `Backend.embed`.

        Raises:
            ConfigError: always, the runtime makes logits only.
        """
        raise ConfigError(
            f"'{self.info.name}' runs in {self.info.kind}, which shows no hidden states; serve the "
            "model folder to embed texts"
        )

    async def close(self) -> None:
        """See `Backend.close`."""
        await super().close()
        self._model.close()


def choose_slots(cfg: EngineConfig, model: SlotModel) -> int:
    """Number of slots: what the settings of the cache allow.

    Raises:
        ConfigError: that is not enough for one full context.
    """
    tokens = cache_tokens(cfg, model.max_positions, model.token_bytes)
    slots = tokens // model.max_positions
    if not slots:
        raise ConfigError(
            f"the cache would hold {tokens} tokens, but one text may have {model.max_positions}; "
            "allow more with cache_tokens or cache_bytes, or free some memory"
        )
    return min(slots, MOST_SLOTS)
