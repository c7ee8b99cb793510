# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Small real things to test with: sentences, a prepared folder, models of each shape, batches."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openllm.core.files import write_json
from openllm.data.document import SPLITS
from openllm.data.loader import IGNORE, Batch
from openllm.data.shards import Shards
from openllm.nn.config import (
    AttentionConfig,
    GeGLUConfig,
    GeluConfig,
    LearnedPositionConfig,
    ModelConfig,
    RopeConfig,
    SwiGLUConfig,
)
from openllm.nn.model import Transformer, build_model
from openllm.nn.norm import LayerNormConfig, RMSNormConfig
from openllm.nn.rope_scaling import Llama3Scaling

VOCAB_SIZE = 640
"""Vocabulary size of the tiny tokenizer."""

SHAPES = {
    # grouped heads whose widths do not add up to the model's
    "qwen3": ModelConfig(
        vocab_size=VOCAB_SIZE,
        dim=48,
        num_layers=2,
        max_positions=128,
        attention=AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=16),
        mlp=SwiGLUConfig(hidden_dim=96),
    ),
    "llama": ModelConfig(
        vocab_size=VOCAB_SIZE,
        dim=64,
        num_layers=2,
        max_positions=128,
        tie_embeddings=False,
        position=RopeConfig(theta=500_000.0),
        attention=AttentionConfig(num_heads=4, num_kv_heads=1, head_dim=16, qk_norm=False),
        mlp=SwiGLUConfig(hidden_dim=112),
    ),
    "gpt2": ModelConfig(
        vocab_size=VOCAB_SIZE,
        dim=64,
        num_layers=2,
        max_positions=128,
        norm=LayerNormConfig(),
        position=LearnedPositionConfig(),
        attention=AttentionConfig(
            num_heads=4, num_kv_heads=4, head_dim=16, qk_norm=False, bias=True
        ),
        mlp=GeluConfig(hidden_dim=160),
    ),
    # layers without positions; frequencies that fill none of the three zones alone
    "smollm3": ModelConfig(
        vocab_size=VOCAB_SIZE,
        dim=48,
        num_layers=2,
        max_positions=128,
        position=RopeConfig(
            unrotated_layers=(1,), scaling=Llama3Scaling(factor=4.0, original_max_positions=64)
        ),
        attention=AttentionConfig(
            num_heads=3, num_kv_heads=1, head_dim=16, qk_norm=False, bias=True
        ),
        mlp=SwiGLUConfig(hidden_dim=80),
    ),
    # norms after each part, and of all heads together
    "olmo2": ModelConfig(
        vocab_size=VOCAB_SIZE,
        dim=48,
        num_layers=2,
        max_positions=128,
        tie_embeddings=False,
        norm_placement="post",
        attention=AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=12, qk_norm_over="all"),
        mlp=SwiGLUConfig(hidden_dim=96),
    ),
    # soft caps, four norms, a window shorter than the texts, two thetas; untied, because with
    # scaled embeddings a random tied model can only repeat its last token
    "gemma2": ModelConfig(
        vocab_size=VOCAB_SIZE,
        dim=48,
        num_layers=2,
        max_positions=128,
        tie_embeddings=False,
        embed_scale=48**0.5,
        logit_softcap=30.0,
        norm=RMSNormConfig(unit_offset=True),
        norm_placement="both",
        attention=AttentionConfig(
            num_heads=4,
            num_kv_heads=2,
            head_dim=16,
            qk_norm=False,
            scale=24**-0.5,
            softcap=50.0,
            window=9,
            window_layers=(0,),
        ),
        mlp=GeGLUConfig(hidden_dim=96),
    ),
    "gemma3_text": ModelConfig(
        vocab_size=VOCAB_SIZE,
        dim=48,
        num_layers=2,
        max_positions=128,
        tie_embeddings=False,
        embed_scale=48**0.5,
        norm=RMSNormConfig(unit_offset=True),
        norm_placement="both",
        position=RopeConfig(theta=1e6, window_theta=1e4),
        attention=AttentionConfig(
            num_heads=4, num_kv_heads=1, head_dim=16, window=9, window_layers=(0,)
        ),
        mlp=GeGLUConfig(hidden_dim=96),
    ),
}
"""A model of two layers for several public architectures."""

NAMES = ["Anna", "Boris", "Clara", "David", "Emma", "Felix", "Greta", "Henri"]
THINGS = ["lamp", "kettle", "boat", "drum", "letter", "apple", "mirror", "ladder"]
PLACES = ["harbour", "garden", "old mill", "library", "café", "Straße"]


def sentences(count: int, seed: int) -> list[str]:
    """Little stories of one to six sentences; some hold characters of two to four bytes."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        name, other = rng.choice(NAMES, 2, replace=False)
        thing, place = rng.choice(THINGS), rng.choice(PLACES)
        story = [f"{name} found a {thing} in the {place}."]
        for _ in range(int(rng.integers(0, 6))):
            day, number = int(rng.integers(1, 31)), int(rng.integers(2, 10))
            story.append(f"On day {day} {other} asked {name} for the {thing} {number} times.")
        texts.append(" ".join(story) + (" ☕🙂" if rng.random() < 0.1 else ""))
    return texts


def write_prepared(folder: Path, counts: Sequence[int] = (300, 20, 20), seed: int = 1) -> Path:
    """A folder as 'openllm data prepare' writes it."""
    folder.mkdir(parents=True)
    splits = {}
    for number, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        texts = sentences(count, seed + number)
        lines = [
            json.dumps({"id": f"{split}-{i}", "text": text, "title": None, "source": "tiny"})
            for i, text in enumerate(texts)
        ]
        (folder / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))
        size = sum(len(text.encode()) for text in texts)
        splits[split] = {"documents": count, "bytes": size}
    sources = [{"name": "tiny", "licence": "CC0-1.0"}]
    facts = {"kind": "documents", "corpus": "user", "sources": sources, "splits": splits}
    write_json(folder / "index.json", {**facts, "fingerprint": f"{seed:064x}", "config": {}})
    return folder


def random_model(cfg: ModelConfig, seed: int = 0, *, spread: float = 0.1) -> Transformer:
    """A model with no weight equal to zero or one, so that each of them matters."""
    model = build_model(cfg, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            gain = parameter.ndim == 1 and bool((parameter == 1).all())
            parameter.copy_(noise * spread + (1 if gain else 0))
    return model


def make_batch(pieces: Sequence[Sequence[int]], seq_len: int) -> Batch:
    """Documents laid end to end into rows; none crosses a row's end."""
    tokens = np.concatenate([np.asarray(piece, dtype=np.int64) for piece in pieces])
    positions = np.concatenate([np.arange(len(piece)) for piece in pieces])
    targets = np.concatenate([[*piece[1:], IGNORE] for piece in pieces]).astype(np.int64)
    borders = (0, *np.cumsum([len(piece) for piece in pieces]).tolist())
    shape = (-1, seq_len)
    return Batch(tokens.reshape(shape), targets.reshape(shape), positions.reshape(shape), borders)


def random_shards(lengths: Sequence[int], vocab_size: int = VOCAB_SIZE, seed: int = 0) -> Shards:
    """Shards of random documents in memory."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint64)
    tokens = np.random.default_rng(seed).integers(4, vocab_size, int(offsets[-1]))
    sizes = np.asarray(lengths, dtype=np.uint32)
    return Shards(Path("."), "train", tokens.astype(np.uint16), offsets, 4 * sizes, sizes)


def settings(data: Path, tokenizer: Path, **changes: Any) -> list[str]:
    """`key=value` arguments of a run of 12 steps that takes a second; `__` stands for a dot."""
    wishes: dict[str, Any] = {
        "data": data,
        "tokenizer": tokenizer,
        "duration": "12 steps",
        "threads": 1,
        "precision": "fp32",
        "batch.seq_len": 32,
        "batch.tokens": 256,
        "batch.micro_rows": 4,
        "validation.every": 4,
        "validation.tokens": 200,
        "checkpoint.every": 3,
        "checkpoint.keep": 2,
        "model.dim": 32,
        "model.num_layers": 2,
        "model.max_positions": 64,
        "model.attention.num_heads": 2,
        "model.attention.head_dim": 16,
        "model.mlp.hidden_dim": 64,
        "optim.lr": 0.02,
        "optim.adamw.lr": 0.005,
    }
    wishes |= {name.replace("__", "."): value for name, value in changes.items()}
    return [f"{key}={value}" for key, value in wishes.items()]
