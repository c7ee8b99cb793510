# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Twenty losses of tiny runs, one per optimizer; rerecord with `python -m tests.golden.record`."""

import json
from pathlib import Path

import torch
from tests.tiny import SHAPES, VOCAB_SIZE

from openllm.data.loader import TokenLoader
from openllm.data.shards import Shards
from openllm.nn.model import build_model
from openllm.train.loop import Trainer
from openllm.train.objective import NextToken
from openllm.train.optim import AdamWConfig, MuonConfig
from openllm.train.schedule import CosineConfig, WSDConfig

FILE = Path(__file__).parent / "loss_curves.json"
STEPS = 20
CURVES = {
    "adamw": (AdamWConfig(lr=5e-3), CosineConfig(warmup=0.1)),
    "muon": (MuonConfig(lr=0.02, adamw=AdamWConfig(lr=5e-3)), WSDConfig(warmup=0.1)),
}


def curve(name: str) -> list[float]:
    """Training losses in nats, rounded; fp32, one thread."""
    optim, schedule = CURVES[name]
    model = build_model(SHAPES["qwen3"].model_copy(update={"dropout": 0.1}))
    loader = TokenLoader(_shards(), seq_len=32, micro_rows=4, seed=0)
    trainer = Trainer(
        model,
        NextToken(),
        optim.build(model),
        lambda step: loader.batches(8 * step, 8 * step + 8),
        total_steps=STEPS,
        lr_factor=lambda step: schedule.factor(step, STEPS),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [round(trainer.train_step().loss, 6) for _ in range(STEPS)]
    finally:
        torch.set_num_threads(threads)


def _shards() -> Shards:
    """Documents that count upwards, so that there is something to learn."""
    import numpy as np
    from tests.tiny import random_shards

    shards = random_shards([11 + 7 * i % 60 for i in range(40)])
    lengths = np.diff(shards.offsets.astype(np.int64))
    starts = np.random.default_rng(0).integers(4, VOCAB_SIZE, len(lengths))
    tokens = [
        4 + (start - 4 + np.arange(length)) % 60
        for start, length in zip(starts, lengths, strict=True)
    ]
    return Shards(
        shards.folder,
        "train",
        np.concatenate(tokens).astype(np.uint16),
        shards.offsets,
        shards.doc_bytes,
        shards.doc_words,
    )


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: curve(name) for name in CURVES}, indent=1) + "\n")
