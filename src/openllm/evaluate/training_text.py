# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What a model was trained on: its lineage and, if available, the tokens themselves."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openllm.core.config import read_yaml
from openllm.core.errors import CheckpointError, DataError
from openllm.core.files import read_json
from openllm.core.log import warn
from openllm.core.runs import RECIPE
from openllm.data.document import read_index
from openllm.data.loader import TokenLoader
from openllm.data.shards import Shards
from openllm.evaluate.heldout import HeldOut
from openllm.train.config import PretrainConfig

Lineage = dict[str, Any]


def read_lineage(model: Path) -> Lineage | None:
    """Read `openllm.json`; None if the model was not trained by OpenLLM.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = model / "openllm.json"
    if not path.exists():
        return None
    mend = "copy the whole model folder again"
    lineage = read_json(path, CheckpointError, mend)
    if lineage.get("made_by") in ("import", "merge"):
        return None
    wanted = {"data", "recipe", "steps", "tokens_seen"}
    if not wanted <= lineage.keys():
        missing = ", ".join(sorted(wanted - lineage.keys()))
        raise CheckpointError(f"{path} lacks: {missing}; {mend}")
    return lineage


def training_recipe(lineage: Lineage) -> PretrainConfig:
    """Return the recipe a model was trained with."""
    return PretrainConfig.parse(lineage["recipe"], "the recipe in openllm.json")


def warn_of_overlap(lineage: Lineage | None, heldout: HeldOut) -> None:
    """Warn if the text may be part of what the model was trained on."""
    if lineage is None:
        warn("the model does not say what it was trained on; it may have seen this text")
    elif lineage["data"]["fingerprint"] != heldout.fingerprint:
        warn(
            f"{heldout.name} was not prepared together with the training text; "
            "whether the model has seen it was not checked"
        )
    elif heldout.split == "train":
        warn("this is the training text; the model has seen it")


@dataclass(frozen=True)
class TrainingText:
    """The training split of a model as tokens, and how far training got through it.

    Attributes:
        loader: gives the rows in training order.
        rows: shown up to the model's weights.
    """

    loader: TokenLoader
    rows: int

    @property
    def tokens(self) -> np.ndarray:
        """All tokens of the training split, concatenated and memory-mapped."""
        return self.loader.shards.tokens

    def seen(self) -> Iterator[np.ndarray]:
        """Yield the pieces of documents the model saw, those of the first epoch only."""
        return self.loader.seen(self.rows)


def find_training_text(
    model: Path,
    lineage: Lineage | None,
    shards: Callable[[Path], Path],
    fingerprint: str,
    *,
    data: Path,
    train_data: Path | None,
    required: bool,
) -> TrainingText | None:
    """Find the training text of a model.

    Args:
        model: its folder; the run's recipe may be next to it.
        lineage: of the model.
        shards: prepared folder -> shard folder made with the model's tokenizer.
        fingerprint: of that tokenizer.
        data: source of the held-out text; its training split may be the one.
        train_data: given by the user; None: look in `data` and where the run read it.
        required: raise if it is not found, else return None, with a warning if it should be there.

    Raises:
        DataError: it is required and not found, or `train_data` is another text.
    """
    required = required or train_data is not None
    if lineage is None:
        if required:
            raise DataError(
                f"{model} has no openllm.json, so the tokens it was trained on are unknown; "
                "omit --ngram and --train-data"
            )
        return None
    places = [data, *_recorded(model)] if train_data is None else [train_data]
    wanted = lineage["data"]
    found = [place for place in places if _fingerprint(place) == wanted["fingerprint"]]
    if not found:
        problem = (
            f"the training text of the model ('{wanted['name']}', fingerprint "
            f"{wanted['fingerprint'][:12]}) is not in {' or in '.join(map(str, places))}; "
            "give its prepared folder with --train-data DIR"
        )
        if required:
            raise DataError(problem)
        warn(f"{problem}. Copies from it are not measured")
        return None
    recipe = training_recipe(lineage)
    loader = TokenLoader(
        Shards.open(shards(found[0]), "train", fingerprint),
        seq_len=recipe.batch.seq_len,
        micro_rows=1,
        seed=recipe.seed,
    )
    rows = recipe.batch.rows_before(lineage["steps"], lineage["total_steps"])
    return TrainingText(loader, rows)


def _recorded(model: Path) -> list[Path]:
    """Where the model's training run read its text."""
    recipe = model.resolve().parent / RECIPE
    data = read_yaml(recipe).get("data") if recipe.exists() else None
    return [Path(data)] if isinstance(data, str) else []


def _fingerprint(folder: Path) -> str | None:
    """Of a prepared folder with a training split; None for anything else."""
    if not (folder / "train.jsonl").exists():
        return None
    return read_index(folder).get("fingerprint")
