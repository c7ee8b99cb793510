# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A small trained model with its data, made once."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from openllm.core.files import write_json
from openllm.data.document import SPLITS

SYLLABLES = ["ba", "ko", "li", "mu", "ne", "po", "ra", "si", "tu", "ve", "dor", "fin", "gal"]


def stories(count: int, seed: int) -> list[str]:
    """Somebody finds a thing, and the thing is named again at the end of the next sentence."""
    words = np.random.default_rng(0).choice(SYLLABLES, (60, 3))
    names = ["".join(word).title() for word in words[:30]]
    things = ["".join(word) for word in words[30:]]
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        name, other = rng.choice(names, 2, replace=False)
        thing, place = rng.choice(things, 2, replace=False)
        texts.append(
            f"One fine day {name} went to the old {place} near the sea and found a {thing}. "
            f"Then {other} came along the road and asked {name} for the {thing}. "
            f"They sat down by the water until the night and spoke of {rng.choice(names)}."
        )
    return texts


def write_prepared(folder: Path, sizes: tuple[int, int, int], seed: int = 1) -> None:
    """A folder as 'openllm data prepare' writes it."""
    folder.mkdir(parents=True)
    splits = {}
    for number, (split, count) in enumerate(zip(SPLITS, sizes, strict=True)):
        texts = stories(count, seed + number)
        lines = [
            json.dumps({"id": f"{split}-{i}", "text": text, "title": None, "source": "stories"})
            for i, text in enumerate(texts)
        ]
        (folder / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))
        splits[split] = {"documents": count, "bytes": sum(len(text) for text in texts)}
    facts = {"kind": "documents", "corpus": "user", "sources": [], "splits": splits}
    write_json(folder / "index.json", {**facts, "fingerprint": f"{seed:064x}", "config": {}})


@dataclass(frozen=True)
class Trained:
    """The paths of its parts."""

    data: Path
    tokenizer: Path
    model: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model of 2 layers after 40 steps on 400 stories."""
    import torch

    from openllm.checkpoint.model_dir import write_model
    from openllm.data.loader import TokenLoader
    from openllm.data.shards import Shards
    from openllm.recipes.build import build_trainer, load_config, resolve
    from openllm.recipes.tokenize import tokenize
    from openllm.text.load import load_tokenizer
    from openllm.text.training import TokenizerSettings, train_model, write_tokenizer

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("evaluate")
    here = Trained(root / "data", root / "tokenizer", root / "run" / "model")
    write_prepared(here.data, (400, 12, 60))
    write_tokenizer(
        here.tokenizer, train_model(stories(400, 1), TokenizerSettings(vocab_size=640)), {}
    )
    tokenizer = load_tokenizer(here.tokenizer)
    cfg = load_config("tiny", ["data=data", "tokenizer=tokenizer", *SETTINGS])
    cfg = resolve(cfg, tokenizer.vocab_size)
    loader = TokenLoader(
        Shards.open(tokenize(here.data, here.tokenizer), "train", tokenizer.fingerprint),
        seq_len=cfg.batch.seq_len,
        micro_rows=cfg.batch.micro_rows,
        seed=cfg.seed,
    )
    trainer = build_trainer(cfg, loader)
    trainer.fit()
    lineage = {
        "recipe": cfg.dump(),
        "data": {"name": "data", "fingerprint": f"{1:064x}"},
        "steps": trainer.step,
        "total_steps": trainer.total_steps,
        "tokens_seen": trainer.tokens,
    }
    weights = trainer.model.state_dict()
    write_model(
        here.model, cfg.model, weights, tokenizer=here.tokenizer, lineage=lineage, card="A test."
    )
    return here


@pytest.fixture(scope="session")
def prepare() -> Callable[..., None]:
    """`write_prepared`, for tests that want other text."""
    return write_prepared


SETTINGS = [
    "duration=40 steps",
    "precision=fp32",
    "device=cpu",
    "threads=1",
    "batch={tokens: 1024, seq_len: 64, micro_rows: 16}",
    "model={dim: 64, num_layers: 2, max_positions: 128, mlp: {hidden_dim: 128}}",
    "model.attention={num_heads: 2, head_dim: 32}",
]
