# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The baseline: a textbook GPT, AdamW with a cosine, random windows of the token stream."""

import math
import sys
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from plain_gpt import PlainGPT, adamw

from ablation.rows import Row, Size
from ablation.text import CHECKS, CONTEXT, open_shards
from openllm.data.loader import sample_documents
from openllm.transform.precision import arithmetic, has_fast_bf16


class Textbook:
    """Model, optimizer and random windows of the stream; `train_step` does one step."""

    def __init__(self, row: Row, size: Size, seed: int) -> None:
        self.cfg = row.plain_settings()
        torch.manual_seed(seed)
        dim, layers, heads = size.plain
        self.model = PlainGPT(row.vocab_size or size.vocab_size, dim, layers, heads, CONTEXT)
        decay = self.cfg["weight_decay"]
        self.optimizer = adamw(self.model, self.cfg["lr"], decay, (0.9, 0.95))
        self.stream = np.asarray(open_shards(row, size, "train").tokens)
        self.rng = np.random.default_rng(seed)
        self.rows = int(self.cfg["tokens_per_step"]) // CONTEXT
        self.steps = -(-(row.tokens or size.tokens) // (self.rows * CONTEXT))
        self.precision: Any = "bf16" if has_fast_bf16("cpu") else "fp32"
        self.step = 0

    def train_step(self) -> float:
        """Run one step; return its loss in nats."""
        warm = max(1, round(self.cfg["warmup"] * self.steps))
        rising = min(1.0, (self.step + 1) / warm)
        done = max(0.0, (self.step - warm) / max(1, self.steps - warm))
        for group in self.optimizer.param_groups:
            group["lr"] = self.cfg["lr"] * rising * 0.5 * (1 + math.cos(math.pi * done))
        starts = self.rng.integers(0, len(self.stream) - CONTEXT - 1, size=self.rows)
        windows = np.stack([self.stream[s : s + CONTEXT + 1] for s in starts]).astype(np.int64)
        tokens = torch.from_numpy(windows)
        with arithmetic(self.precision, "cpu"):
            loss = self.model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return loss.item()


def run_textbook(row: Row, size: Size, seed: int) -> dict[str, Any]:
    """Train, then score the test articles."""
    run = Textbook(row, size, seed)
    validation, test = (open_shards(row, size, split) for split in ("validation", "test"))
    some = sample_documents(validation, size.validation, seed=0)
    curve, losses, times = [], [], []
    tokens_per_step = run.rows * CONTEXT
    while run.step < run.steps:
        began = time.perf_counter()
        losses.append(run.train_step())
        times.append(time.perf_counter() - began)
        if run.step % max(1, run.steps // CHECKS) == 0 or run.step == run.steps:
            bits = _bits_per_byte(run.model, *some, run.precision)
            curve.append([run.step * tokens_per_step, round(sum(times), 1), bits])
            print(f"step {run.step}/{run.steps}: {bits:.4f} bits per byte", file=sys.stderr)
    everything = sample_documents(test, len(test.tokens), seed=0)
    return {
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "tokens": run.steps * tokens_per_step,
        "seconds": round(sum(times), 1),
        "median_step_seconds": float(np.median(times)),
        "tokens_per_step": tokens_per_step,
        "test_bpb": _bits_per_byte(run.model, *everything, run.precision),
        "curve": curve,
        "train_loss": float(np.mean(losses[-20:])),
    }


@torch.no_grad()
def _bits_per_byte(
    model: PlainGPT, documents: list[NDArray[Any]], text_bytes: int, precision: Any
) -> float:
    """Score each document by itself in windows of the context, without the final eos."""
    model.eval()
    pieces = [
        document[start : start + CONTEXT + 1].astype(np.int64)
        for document in (document[:-1] for document in documents)
        for start in range(0, len(document) - 1, CONTEXT)
    ]
    pieces.sort(key=len)
    nats = 0.0
    for first in range(0, len(pieces), 16):
        group = pieces[first : first + 16]
        batch = np.full((len(group), len(group[-1])), -100)
        for line, piece in enumerate(group):
            batch[line, : len(piece)] = piece
        tokens = torch.from_numpy(batch)
        with arithmetic(precision, "cpu"):
            mean = model(tokens[:, :-1].clamp_min(0), tokens[:, 1:])
        nats += mean.item() * int((tokens[:, 1:] >= 0).sum())
    model.train()
    return nats / math.log(2) / text_bytes
