# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Training speed of the recipe and the textbook GPT, measured in turns in one process.

Queued runs are hours apart on a machine whose speed varies; their times are not comparable.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from ablation.rows import SIZES, Row
from ablation.runs import ours_settings
from ablation.text import CONTEXT, open_shards
from ablation.textbook import Textbook
from openllm.recipes import build

ROUNDS = 15
BURST = 4
"""Steps of each per round."""


def measure(ours: Row, plain: Row) -> dict[str, Any]:
    """Tokens per second of both, and the median of the rounds' ratios."""
    size = SIZES[ours.size]
    cfg = build.load_config(size.recipe, ours_settings(ours, size, 0))
    train = open_shards(ours, size, "train")
    cfg = build.resolve(cfg, ours.vocab_size or size.vocab_size)
    build.prepare_process(cfg)
    trainer = build.build_trainer(cfg, build.build_loader(cfg, train))
    trainer.model.train()
    textbook = Textbook(plain, size, 0)
    pairs = []
    for number in range(ROUNDS + 1):
        rates = [
            _rate(trainer.train_step, cfg.batch.tokens),
            _rate(textbook.train_step, textbook.rows * CONTEXT),
        ]
        if number:  # the first one is a warm-up
            pairs.append(rates)
    return {
        "tokens_per_second": statistics.median(mine for mine, _ in pairs),
        "plain_tokens_per_second": statistics.median(theirs for _, theirs in pairs),
        "ratio": statistics.median(mine / theirs for mine, theirs in pairs),
        "threads": torch.get_num_threads(),
        "plain_context": CONTEXT,
    }


def _rate(step: Callable[[], object], tokens: int) -> float:
    began = time.perf_counter()
    for _ in range(BURST):
        step()
    return BURST * tokens / (time.perf_counter() - began)
