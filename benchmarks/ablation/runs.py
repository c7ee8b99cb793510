# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""One run of the ablation: ours through `openllm train`, the textbook GPT through a plain loop."""

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from plain_gpt import PlainGPT, adamw
from record import SHARED

from ablation.rows import SIZES, Row, Size
from openllm.core.runs import read_metrics
from openllm.data.loader import sample_documents
from openllm.data.shards import Shards
from openllm.recipes import pretrain, tokenizer
from openllm.recipes.prepare import prepare_main
from openllm.recipes.tokenize import tokenize
from openllm.text.tokenizer import Tokenizer
from openllm.transform.precision import arithmetic, has_fast_bf16

WORK = Path("runs/ablate")
DATA = WORK / "squad"
CONTEXT = 512
"""Tokens a window of the textbook GPT."""
CHECKS = 10


def vocabulary(vocab_size: int) -> Path:
    """Folder of a tokenizer."""
    return WORK / f"tokenizer-{vocab_size}"


def prepare_size(size: Size, row: Row) -> None:
    """Data and tokenizer, made once."""
    if not (DATA / "index.json").exists():
        titles = ["--title-key", "title", "--title-key", "source"]
        prepare_main(["squad", "--source", str(SHARED / "squad"), *titles, "--out", str(DATA)])
    vocab_size = row.vocab_size or size.vocab_size
    folder = vocabulary(vocab_size)
    if not (folder / "tokenizer.json").exists():
        words = [str(DATA), "--vocab-size", str(vocab_size), "--out", str(folder)]
        tokenizer.train_main(words)


def run(row: Row, seed: int, out: Path) -> dict[str, Any]:
    """Train, then score the test articles."""
    size = SIZES[row.size]
    return (_run_plain if row.kind == "plain" else _run_ours)(row, size, seed, out)


def _shards(row: Row, size: Size, split: str) -> Shards:
    folder = vocabulary(row.vocab_size or size.vocab_size)
    return Shards.open(tokenize(DATA, folder), split, Tokenizer.load(folder).fingerprint)


def _run_ours(row: Row, size: Size, seed: int, out: Path) -> dict[str, Any]:
    from openllm.checkpoint.model_dir import load_model
    from openllm.train.scoring import score_documents

    settings = [
        f"data={DATA}",
        f"tokenizer={vocabulary(row.vocab_size or size.vocab_size)}",
        f"duration={row.tokens or size.tokens} tokens",
        f"validation.tokens={size.validation}",
        f"seed={seed}",
        *size.settings,
        *row.settings,
    ]
    cfg = pretrain.load_config(size.recipe, settings)
    steps = (row.tokens or size.tokens) // cfg.batch.tokens
    every = [f"validation.every={steps // CHECKS}", f"checkpoint.every={max(1, steps // 4)}"]
    pretrain.train(pretrain.load_config(size.recipe, [*settings, *every]), out)
    lines = read_metrics(out)
    train = [line for line in lines if line["kind"] == "train"]
    spent = np.cumsum([line["seconds"] for line in train])
    test = _shards(row, size, "test")
    documents, text_bytes = sample_documents(test, len(test.tokens), 0)
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


def _run_plain(row: Row, size: Size, seed: int, out: Path) -> dict[str, Any]:
    cfg = row.plain_settings()
    torch.manual_seed(seed)
    dim, layers, heads = size.plain
    model = PlainGPT(row.vocab_size or size.vocab_size, dim, layers, heads, CONTEXT)
    optimizer = adamw(model, cfg["lr"], cfg["weight_decay"], (0.9, 0.95))
    stream = np.asarray(_shards(row, size, "train").tokens)
    validation, test = (_shards(row, size, split) for split in ("validation", "test"))
    some = sample_documents(validation, size.validation, seed)
    rng = np.random.default_rng(seed)
    rows = int(cfg["tokens_per_step"]) // CONTEXT
    steps = -(-(row.tokens or size.tokens) // (rows * CONTEXT))
    warm = max(1, round(cfg["warmup"] * steps))
    precision = "bf16" if has_fast_bf16("cpu") else "fp32"
    spent, curve, losses, times = 0.0, [], [], []
    for step in range(steps):
        began = time.perf_counter()
        rising = min(1.0, (step + 1) / warm)
        done = max(0.0, (step - warm) / max(1, steps - warm))
        for group in optimizer.param_groups:
            group["lr"] = cfg["lr"] * rising * 0.5 * (1 + math.cos(math.pi * done))
        starts = rng.integers(0, len(stream) - CONTEXT - 1, size=rows)
        windows = np.stack([stream[s : s + CONTEXT + 1] for s in starts]).astype(np.int64)
        tokens = torch.from_numpy(windows)
        with arithmetic(precision, "cpu"):
            loss = model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        times.append(time.perf_counter() - began)
        spent += times[-1]
        if (step + 1) % max(1, steps // CHECKS) == 0 or step + 1 == steps:
            bits = _bits_per_byte(model, *some, precision)
            curve.append([(step + 1) * rows * CONTEXT, round(spent, 1), bits])
            print(f"step {step + 1}/{steps}: {bits:.4f} bpb, {spent:.0f} s", file=sys.stderr)
    everything = sample_documents(test, len(test.tokens), 0)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": steps * rows * CONTEXT,
        "seconds": round(spent, 1),
        "median_step_seconds": float(np.median(times)),
        "tokens_per_step": rows * CONTEXT,
        "test_bpb": _bits_per_byte(model, *everything, precision),
        "curve": curve,
        "train_loss": float(np.mean(losses[-20:])),
    }


@torch.no_grad()
def _bits_per_byte(
    model: PlainGPT, documents: list[NDArray[Any]], text_bytes: int, precision: Any
) -> float:
    """Each document by itself in windows of the context; the closing eos is left out."""
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
