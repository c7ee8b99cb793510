# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The rows of the ablation: what is trained, and what each row changes."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

WORK = Path("runs/ablate")

PLAIN = {"lr": 0.001, "tokens_per_step": 2048.0, "weight_decay": 0.1, "warmup": 0.05}
"""Settings of the textbook loop: cosine to zero, clip norm 1, betas 0.9 and 0.95."""


@dataclass(frozen=True)
class Size:
    """A model size of the study; `plain` and ours have about equally many parameters.

    Attributes:
        recipe: the shipped recipe that ours starts from.
        vocab_size: of the tokenizer, trained on SQuAD.
        tokens: budget of our rows; the baseline has twice as many.
        settings: overrides of the recipe.
        plain: dim, num_layers, num_heads of the textbook GPT.
        validation: approximate tokens scored, ten times per run.
    """

    recipe: str
    vocab_size: int
    tokens: int
    settings: tuple[str, ...]
    plain: tuple[int, int, int]
    validation: int = 32_768

    def dump(self, row: "Row") -> list[Any]:
        """What a row's result depends on."""
        vocab_size = row.vocab_size or self.vocab_size
        text = [] if row.text == "squad" else [row.text]
        if row.kind == "plain":
            return [vocab_size, *self.plain, sorted(row.plain_settings().items()), *text]
        return [vocab_size, self.recipe, *self.settings, sorted(row.settings), *text]


@dataclass(frozen=True)
class Row:
    """One line of the table: `settings` override the size's; in plain rows NAME=VALUE of the loop.

    `against` names the row of the same size that it is compared with; `taught_by`, the row whose
    models, one per seed, are its teachers.
    """

    size: str
    name: str
    settings: tuple[str, ...] = ()
    kind: Literal["ours", "plain"] = "ours"
    seeds: int = 1
    tokens: int | None = None
    vocab_size: int | None = None
    text: Literal["squad", "quarter"] = "squad"
    against: str = "recipe"
    taught_by: "Row | None" = None

    def plain_settings(self) -> dict[str, float]:
        """Settings of the textbook loop."""
        return PLAIN | {key: float(value) for key, value in (s.split("=") for s in self.settings)}

    @property
    def label(self) -> str:
        """Unique label."""
        return f"{self.size}:{self.name}"


SIZES = {
    "tiny": Size("tiny", 2048, 1_000_000, (), (256, 4, 4)),
    "1M": Size("scaled", 2048, 1_000_000, ("scale=1M",), (192, 3, 3)),
    # 12M with embeddings; the narrower MLP makes both sides equally large
    "12M": Size("scaled", 8192, 1_000_000, ("scale=9M", "model.mlp.hidden_dim=1024"), (384, 5, 6)),
}


def digest(row: Row, seed: int) -> str:
    """Name of a run, from its settings and not from the row's name."""
    size = SIZES[row.size]
    parts = [row.kind, row.tokens or size.tokens, size.dump(row), seed]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


Settings = tuple[str, ...]

ADAMW = ("optim.kind=adamw", "optim.weight_decay=0.1")
CHANGES: dict[str, Settings] = {
    "AdamW 0.001": (*ADAMW, "optim.lr=0.001"),
    "AdamW 0.002": (*ADAMW, "optim.lr=0.002"),
    "AdamW 0.004": (*ADAMW, "optim.lr=0.004"),
    "3 Newton-Schulz iterations": ("optim.ns_steps=3",),
    "rows of 512": ("batch.seq_len=512", "batch.micro_rows=4"),
    "cosine": ("schedule.kind=cosine",),
    "batch from 1,024 to 2,048 tokens": ("batch.start=1024", "batch.rise=0.6"),
    "batch from 1,024 to 4,096 tokens": ("batch.start=1024", "batch.rise=0.6", "batch.tokens=4096"),
    "decay 0.9": ("schedule.decay=0.9",),
    "decay 0.3": ("schedule.decay=0.3",),
    "residual matrices begin at zero": ("model.init_residual=0",),
    "cautious weight decay": ("optim.cautious=true",),
    "no query-key norm": ("model.attention.qk_norm=false",),
    "average of weights 0.99": ("ema=0.99",),
    "dropout 0.1": ("model.dropout=0.1",),
}
"""Settings that a shipped recipe may use."""

RESEARCH: dict[str, Settings] = {
    "research: U-net skips": ("model.research.unet_skips=true",),
    "research: embedding mix": ("model.research.embedding_mix=true",),
    "research: value embeddings": ("model.research.value_embeddings=true",),
    "research: squared ReLU": ("model.mlp.kind=relu2", "model.mlp.hidden_dim=1152"),
}
"""Features of no public architecture; the squared ReLU has as many weights as the gated MLP."""

EPOCHS: dict[str, Settings] = {
    "8 epochs": (),
    "8 epochs, one order": ("batch.reshuffle=false",),
    "8 epochs, dropout 0.1": ("model.dropout=0.1",),
    "8 epochs, dropout 0.2": ("model.dropout=0.2",),
    "8 epochs, weight decay 0.4": ("optim.weight_decay=0.4",),
    "8 epochs, weight decay 1.6": ("optim.weight_decay=1.6",),
    "8 epochs, average of weights 0.998": ("ema=0.998",),
    "8 epochs, Muon half": ("optim.lr=0.0015",),
    "8 epochs, average 0.998, dropout 0.1": ("ema=0.998", "model.dropout=0.1"),
    "8 epochs, average 0.998, weight decay 0.4": ("ema=0.998", "optim.weight_decay=0.4"),
    "8 epochs, average 0.998, weight decay 1.6": ("ema=0.998", "optim.weight_decay=1.6"),
    "8 epochs, average 0.998, weight decay 1.6, dropout 0.1": (
        *("ema=0.998", "optim.weight_decay=1.6", "model.dropout=0.1"),
    ),
    "8 epochs, average 0.998, weight decay 1.6, dropout 0.2": (
        *("ema=0.998", "optim.weight_decay=1.6", "model.dropout=0.2"),
    ),
}
"""On a quarter of the text, where text is scarce and time is not."""


SHAPE_12M = (
    *("scale=null", "model.dim=384", "model.num_layers=5", "model.attention.num_heads=6"),
    *("batch.tokens=2048", "batch.seq_len=1024", "batch.micro_rows=2"),
)
"""What `scale=9M` sets, for rows without Muon, to which `scale` does not apply."""


def _dial(lr: float, embedding: float, decay: float) -> dict[str, Settings]:
    """Around what `scale` sets: half and double, no decay and four times as much."""
    return {
        "Muon half": (f"optim.lr={lr / 2:g}",),
        "Muon double": (f"optim.lr={lr * 2:g}",),
        "embedding half": (f"optim.adamw.lr={embedding / 2:g}",),
        "embedding double": (f"optim.adamw.lr={embedding * 2:g}",),
        "1,024 tokens a step": ("batch.tokens=1024", "batch.micro_rows=1"),
        "4,096 tokens a step": ("batch.tokens=4096",),
        "no weight decay": ("optim.weight_decay=0", "optim.adamw.weight_decay=0"),
        f"weight decay {decay * 4:g}": (f"optim.weight_decay={decay * 4:g}",),
    }


def _baselines(size: str, settings: dict[str, Settings], best: str, tokens: int) -> list[Row]:
    """The textbook GPT with AdamW: three seeds of the best settings, one of the others."""
    return [
        Row(size, f"baseline {name}", values, "plain", 3 if name == best else 1, tokens)
        for name, values in settings.items()
    ]


def _ours(size: str, changes: dict[str, Settings]) -> list[Row]:
    return [Row(size, name, values) for name, values in changes.items()]


def _quarter(row: Row) -> Row:
    return replace(row, text="quarter", tokens=EPOCHS_TOKENS, against="8 epochs")


def _taught(row: Row) -> Row:
    """A student distilled from all seeds of a row."""
    folders = ",".join(f"{WORK / digest(row, seed)}/model" for seed in range(row.seeds))
    settings = (*row.settings, f"distill.teachers=[{folders}]")
    name = f"{row.name}, taught by {row.seeds} seeds"
    return replace(row, name=name, settings=settings, seeds=1, taught_by=row)


def _plain(rates: tuple[float, ...], tokens_per_step: int) -> dict[str, Settings]:
    return {
        f"{rate}, {tokens_per_step:,} a step": (
            f"lr={rate}",
            f"tokens_per_step={tokens_per_step}",
        )
        for rate in rates
    }


TINY = Row("tiny", "recipe", seeds=3)
EPOCHS_TOKENS = 2_700_000
BEST = "8 epochs, average 0.998, weight decay 1.6"
BEST_EPOCHS = _quarter(Row("tiny", BEST, EPOCHS[BEST], seeds=3))

ROWS = (
    *_baselines(
        "tiny",
        {
            **_plain((0.0005, 0.001, 0.002, 0.004), 2048),
            **_plain((0.001, 0.002), 4096),
            **_plain((0.001,), 1024),
        },
        "0.002, 2,048 a step",
        2_000_000,
    ),
    TINY,
    *_ours("tiny", _dial(0.003, 0.015, 0.1) | CHANGES | RESEARCH),
    *(Row("tiny", f"vocabulary {size:,}", vocab_size=size) for size in (1024, 4096, 8192, 16_384)),
    *(_quarter(row) for row in _ours("tiny", EPOCHS) if row.name != BEST_EPOCHS.name),
    BEST_EPOCHS,
    *(_taught(row) for row in (TINY, BEST_EPOCHS)),
    *_baselines("12M", _plain((0.0005, 0.001, 0.002), 2048), "0.001, 2,048 a step", 2_000_000),
    Row("12M", "recipe", seeds=3),
    *_ours("12M", _dial(0.0024, 0.0053, 0.24)),
    *_ours("12M", {"AdamW 0.001": (*SHAPE_12M, *CHANGES["AdamW 0.001"])}),
    Row("1M", "recipe"),
    *_ours("1M", _dial(0.0035, 0.015, 0.54)),
)
