# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Models of each shape that GGUF can hold, their files, and a byte-level tokenizer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from tests.text.strategies import SPACES, WORDS
from tests.tiny import SHAPES, VOCAB_SIZE, sentences
from tokenizers import models, pre_tokenizers, trainers

from openllm.checkpoint.model_dir import write_model
from openllm.export.gguf.file import Dtype
from openllm.export.gguf.writer import export_gguf
from openllm.nn.config import ModelConfig
from openllm.nn.heads import logits
from openllm.nn.model import Transformer

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")


def changed(name: str, **rest: Any) -> ModelConfig:
    """A shape with other values; `__` stands for a dot."""
    values = SHAPES[name].dump()
    for key, value in rest.items():
        place, parts = values, key.split("__")
        for part in parts[:-1]:
            place = place[part]
        place[parts[-1]] = value
    return ModelConfig.parse(values, "test")


_GEMMA: dict[str, Any] = {
    "dim": 64,
    "num_layers": 7,
    "embed_scale": 8.0,
    "norm_placement": "both",
    "norm__unit_offset": True,
    "mlp": {"kind": "geglu", "hidden_dim": 96},
    "attention__window": 12,
}
_LONGROPE = {
    "kind": "longrope",
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [1.5 + i for i in range(8)],
    "original_max_positions": 256,
    "factor": 2.0,
}

GGUF_SHAPES: dict[str, tuple[str, ModelConfig]] = {
    "qwen3": ("qwen3", SHAPES["qwen3"]),
    "qwen3 with yarn": (
        "qwen3",
        changed(
            "qwen3",
            position__scaling={"kind": "yarn", "factor": 4.0, "original_max_positions": 32},
        ),
    ),
    "qwen2": (
        "qwen2",
        changed("llama", attention__bias=True, attention__output_bias=False),
    ),
    "qwen2 with narrow heads": (
        "llama",
        changed("llama", attention__bias=True, attention__output_bias=False, attention__head_dim=8),
    ),
    "llama": ("llama", SHAPES["llama"]),
    "llama with linear": (
        "llama",
        changed("llama", position__scaling={"kind": "linear", "factor": 3.0}),
    ),
    "llama with llama3": (
        "llama",
        changed(
            "llama",
            position__scaling={"kind": "llama3", "factor": 8.0, "original_max_positions": 32},
        ),
    ),
    "llama with yarn": (
        "llama",
        changed(
            "llama",
            attention__scale=0.3,
            position__scaling={
                "kind": "yarn",
                "factor": 4.0,
                "original_max_positions": 32,
                "attention_factor": 1.3,
            },
        ),
    ),
    "mistral": ("llama", changed("llama", attention__window=40, norm__eps=1e-5)),
    "smollm3": (
        "smollm3",
        changed(
            "llama",
            num_layers=5,
            position__unrotated_layers=[3],
            tie_embeddings=True,
            attention__bias=True,
            attention__output_bias=False,
        ),
    ),
    "gpt2": ("gpt2", SHAPES["gpt2"]),
    "gemma2": (
        "gemma2",
        changed(
            "qwen3",
            **_GEMMA,
            attention__qk_norm=False,
            attention__softcap=5.0,
            attention__scale=0.4,
            attention__window_layers=[0, 2, 4, 6],
            logit_softcap=3.0,
        ),
    ),
    "gemma3": (
        "gemma3",
        changed(
            "qwen3",
            **_GEMMA,
            attention__scale=0.4,
            attention__window_layers=[0, 1, 2, 3, 4, 6],
            position__theta=1e6,
            position__window_theta=1e4,
            position__scaling={"kind": "linear", "factor": 2.0},
        ),
    ),
    "gemma3 with other windows": (
        "gemma3",
        changed("qwen3", **_GEMMA, attention__window_layers=[1, 4], position__window_theta=1e3),
    ),
    "olmo2": (
        "olmo2",
        changed(
            "llama",
            norm_placement="post",
            attention__qk_norm=True,
            attention__qk_norm_over="all",
            tie_embeddings=True,
        ),
    ),
    "phi3": ("phi3", changed("llama", max_positions=512, position__scaling=_LONGROPE)),
    "phi3 partly rotated": ("phi3", changed("llama", position__fraction=0.75)),
}
"""Name of a test -> llama.cpp's name, and a config."""


def byte_level(folder: Path, pattern: str | None, *, ignore_merges: bool = False) -> Path:
    """Write a byte-level BPE of at most 640 tokens whose words a pattern cuts; none: as GPT-2."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizers.Tokenizer(models.BPE(ignore_merges=ignore_merges))
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    steps = [] if pattern is None else [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, bytes_only]) if steps else bytes_only
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - 20,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|bos|>", "<|eos|>", "<|end_of_turn|>"],
        show_progress=False,
    )
    text = "".join(word + SPACES[i % len(SPACES)] for i, word in enumerate(WORDS * 20))
    tokenizer.train_from_iterator([*sentences(200, 1), text], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<|bos|>", "eos_token": {"content": "<|eos|>"}, "pad_token": "<|eos|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


@torch.no_grad()
def our_logits(model: Transformer, ids: list[int]) -> NDArray[np.float32]:
    """(T, V)."""
    return logits(model(torch.tensor([ids])).x, model.head)[0].numpy()


def difference(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def written(folder: Path, model: Transformer, tokenizer: Path, **lineage: Any) -> Path:
    """A model folder called `tiny`."""
    weights = model.state_dict()
    write_model(
        folder / "tiny", model.cfg, weights, tokenizer=tokenizer, lineage=lineage, card="# a test"
    )
    return folder / "tiny"


def exported(folder: Path, model: Transformer, tokenizer: Path, dtype: Dtype) -> Path:
    """The GGUF file of a model."""
    source = written(folder, model, tokenizer)
    (folder / "gguf").mkdir()
    export_gguf(source, folder / "gguf", dtype=dtype)
    return folder / "gguf" / f"tiny-{dtype.upper()}.gguf"


def tokens(length: int = 60) -> list[int]:
    """Some ids that are not those of special tokens."""
    return np.random.default_rng(0).integers(4, VOCAB_SIZE, length).tolist()
