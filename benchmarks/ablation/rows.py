# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The rows of the ablation: what is trained, and what each row changes."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Size:
    """A model size of the study; `plain` and ours have about equal parameters.

    Attributes:
        recipe: the shipped recipe that ours begins from.
        vocab_size: of the tokenizer, trained on SQuAD.
        tokens: budget of our rows; the baseline has twice as many.
        settings: over the recipe.
        plain: dim, num_layers, num_heads of the textbook GPT.
        validation: about how many tokens are scored ten times a run.
    """

    recipe: str
    vocab_size: int
    tokens: int
    settings: tuple[str, ...]
    plain: tuple[int, int, int]
    validation: int = 32_768

    def dump(self, row: "Row") -> list[Any]:
        """What a row's result depends on."""
        shape = self.plain if row.kind == "plain" else (self.recipe, *self.settings)
        return [row.vocab_size or self.vocab_size, *shape]


@dataclass(frozen=True)
class Row:
    """One line of the table: `settings` over the size's; of plain rows NAME=VALUE of its loop."""

    size: str
    name: str
    settings: tuple[str, ...] = ()
    kind: Literal["ours", "plain"] = "ours"
    seeds: int = 1
    tokens: int | None = None
    vocab_size: int | None = None

    @property
    def label(self) -> str:
        """Unique."""
        return f"{self.size}:{self.name}"


SIZES = {
    "tiny": Size("tiny", 2048, 1_000_000, (), (256, 4, 4)),
    "12M": Size(
        "tiny",
        8192,
        1_000_000,
        (
            "model.dim=384",
            "model.num_layers=5",
            "model.attention.num_heads=6",
            "model.mlp.hidden_dim=1024",
            "optim.adamw.lr=0.004",
        ),
        (384, 5, 6),
    ),
}


def _baselines(size: str, rates: tuple[float, ...], best: float, tokens: int) -> list[Row]:
    """The textbook GPT with AdamW: three seeds at the best rate, one beside it each."""
    return [
        Row(
            size,
            f"baseline lr {rate}",
            (f"lr={rate}",),
            "plain",
            seeds=3 if rate == best else 1,
            tokens=tokens,
        )
        for rate in rates
    ]


def _ours(size: str) -> list[Row]:
    adamw = ("optim.kind=adamw", "optim.weight_decay=0.1")
    changes: dict[str, tuple[str, ...]] = {
        "AdamW 0.002": (*adamw, "optim.lr=0.002"),
        "AdamW 0.004": (*adamw, "optim.lr=0.004"),
        "Muon half": ("optim.lr=0.0015",),
        "Muon double": ("optim.lr=0.006",),
        "3 Newton-Schulz iterations": ("optim.ns_steps=3",),
        "1,024 tokens a step": ("batch.tokens=1024", "batch.micro_rows=1"),
        "4,096 tokens a step": ("batch.tokens=4096",),
        "rows of 512": ("batch.seq_len=512", "batch.micro_rows=4"),
        "cosine": ("schedule.kind=cosine",),
        "decay 0.9": ("schedule.decay=0.9",),
        "decay 0.3": ("schedule.decay=0.3",),
        "residual matrices begin at zero": ("model.init_residual=0",),
        "no weight decay": ("optim.weight_decay=0", "optim.adamw.weight_decay=0"),
        "weight decay 0.4": ("optim.weight_decay=0.4",),
        "cautious weight decay": ("optim.cautious=true",),
        "no query-key norm": ("model.attention.qk_norm=false",),
        "average of weights 0.99": ("ema=0.99",),
        "dropout 0.1": ("model.dropout=0.1",),
    }
    return [
        Row(size, "recipe", seeds=3),
        *(Row(size, name, settings) for name, settings in changes.items()),
    ]


ROWS = (
    *_baselines("tiny", (0.001, 0.002, 0.004, 0.008), 0.004, 2_000_000),
    *_ours("tiny"),
    *_baselines("12M", (0.001, 0.002, 0.004), 0.002, 2_000_000),
    *_ours("12M"),
)
