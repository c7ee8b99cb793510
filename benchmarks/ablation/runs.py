# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""One run of the ablation: ours through `openllm train`, the textbook GPT through a plain loop."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablation.rows import SIZES, Row, Size
from ablation.text import CHECKS, CONTEXT, TEXTS, open_shards, vocabulary
from ablation.textbook import run_textbook
from openllm.core.runs import read_metrics
from openllm.data.loader import sample_documents
from openllm.recipes import build, pretrain
from openllm.transform.precision import has_fast_bf16


def run(row: Row, seed: int, threads: int, out: Path) -> dict[str, Any]:
    """Train, then score the test articles."""
    size = SIZES[row.size]
    torch.set_num_threads(threads)
    if row.kind == "plain":
        return run_textbook(row, size, seed)
    return _run_ours(row, size, seed, threads, out)


def ours_settings(row: Row, size: Size, seed: int) -> list[str]:
    """Recipe overrides of one of our runs."""
    return [
        f"data={TEXTS[row.text]}",
        f"tokenizer={vocabulary(row.vocab_size or size.vocab_size)}",
        f"duration={row.tokens or size.tokens} tokens",
        f"validation.tokens={size.validation}",
        f"seed={seed}",
        *size.settings,
        *row.settings,
    ]


def _run_ours(row: Row, size: Size, seed: int, threads: int, out: Path) -> dict[str, Any]:
    from openllm.checkpoint.model_dir import load_model
    from openllm.train.scoring import score_documents

    settings = [*ours_settings(row, size, seed), f"threads={threads}"]
    cfg = build.load_config(size.recipe, settings)
    steps = (row.tokens or size.tokens) // cfg.batch.tokens
    every = [f"validation.every={steps // CHECKS}", f"checkpoint.every={max(1, steps // 4)}"]
    pretrain.train(build.load_config(size.recipe, [*settings, *every]), out)
    lines = read_metrics(out)
    train = [line for line in lines if line["kind"] == "train"]
    spent = np.cumsum([line["seconds"] for line in train])
    test = open_shards(row, size, "test")
    documents, text_bytes = sample_documents(test, len(test.tokens), seed=0)
    model = load_model(out / "model")
    precision = "bf16" if has_fast_bf16("cpu") else "fp32"
    scores = score_documents(model, documents, context=CONTEXT, stride=CONTEXT, precision=precision)
    nats = -sum(float(score.logprobs[:-1].sum()) for score in scores)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": train[-1]["tokens"],
        "seconds": round(float(spent[-1]), 1),
        "median_step_seconds": float(np.median([line["seconds"] for line in train])),
        "tokens_per_step": cfg.batch.tokens,
        "test_bpb": nats / math.log(2) / text_bytes,
        "curve": [
            [line["tokens"], round(float(spent[line["step"] - 1]), 1), line["bits_per_byte"]]
            for line in lines
            if line["kind"] == "validation"
        ],
        "train_loss": float(np.mean([line["loss"] for line in train[-20:]])),
    }
