# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The task of every contender. Importable without torch."""

from dataclasses import dataclass

from openllm.recipes.build import load_config
from openllm.train.config import BatchConfig, PretrainConfig
from openllm.train.optim import AdamWConfig

ADAMW = AdamWConfig(lr=1e-4)
"""Everyone's optimizer; the learning rate is low, since only step time matters."""

LIMIT = "limit"
SPEED = {
    "ours": "openllm",
    "ours-compiled": "openllm, torch.compile",
    "plain": "plain GPT",
    "plain-compiled": "plain GPT, torch.compile",
    "llama": "transformers Llama",
    "llama-compiled": "transformers Llama, torch.compile",
    "gpt2": "transformers GPT-2",
    "gpt2-compiled": "transformers GPT-2, torch.compile",
    "litgpt": "litgpt",
    "litgpt-compiled": "litgpt, torch.compile",
    LIMIT: "matrix products alone",
}
"""Contenders of the comparison -> their names in tables."""

DOCUMENTS = {
    "ours-packed": "openllm, packed rows",
    "ours-padded": "openllm, padded documents",
    "plain-padded": "plain GPT, padded documents",
    "plain-stream": "plain GPT, unbroken stream",
    "plain-stream-compiled": "plain GPT, unbroken stream, torch.compile",
}
"""Contenders on real documents -> their names in tables."""


@dataclass(frozen=True)
class Job:
    """One shape of model and batch; `shards` is None for random tokens."""

    preset: str
    vocab_size: int
    rows: int
    seq_len: int
    device: str
    precision: str
    threads: int
    shards: str | None = None
    fingerprint: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens per step."""
        return self.rows * self.seq_len

    def recipe(self) -> PretrainConfig:
        """The shipped recipe with this shape: what `openllm train` runs, except for AdamW."""
        cfg = load_config(self.preset)
        return cfg.model_copy(
            update={
                "model": cfg.model.model_copy(update={"vocab_size": self.vocab_size}),
                "batch": BatchConfig(
                    tokens=self.tokens, seq_len=self.seq_len, micro_rows=self.rows
                ),
                "optim": ADAMW,
                "duration": "1_000_000 steps",
                "device": self.device,
                "precision": self.precision,
                "threads": self.threads,
            }
        )


def is_ours(name: str) -> bool:
    """Whether a contender is this project's."""
    return name.partition("-")[0] == "ours"


def is_compiled(name: str) -> bool:
    """Whether a contender uses torch.compile."""
    return name.endswith("-compiled")
