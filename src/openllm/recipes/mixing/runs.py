# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The runs of `openllm data mix`: one per mixture and seed, each stored in one file.

OUT/results/DIGEST.json   the result of one run; DIGEST is of all that determines it

So repeating the command does only the missing runs, whichever mixtures or seeds are requested.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from openllm import __version__
from openllm.core.errors import DataError, TrainingError
from openllm.core.files import read_json, write_json
from openllm.core.log import Meter
from openllm.core.runs import MACHINE_KEYS
from openllm.data.mixture import Mixture, MixtureLoader
from openllm.data.shards import Shards
from openllm.recipes.build import build_loader, build_trainer, describe_machine
from openllm.train.config import PretrainConfig

if TYPE_CHECKING:
    from openllm.train.loop import StepRecord, Trainer

RESULTS = "results"
_IDLE_KEYS = ("data", "tokenizer", "validation", "checkpoint", *MACHINE_KEYS)
"""Settings that do not change a run's result, or that its key names by fingerprint."""


@dataclass(frozen=True)
class Source:
    """One prepared folder and its shards."""

    name: str
    folder: Path
    corpus: str
    fingerprint: str
    train: Shards
    validation: Shards


@dataclass(frozen=True)
class Bench:
    """What all runs share.

    Attributes:
        folder: holds the results.
        cfg: the resolved recipe.
        tokenizer: its fingerprint.
        sources: by name.
        targets: name of a source -> numbers of the validation documents that are scored.
    """

    folder: Path
    cfg: PretrainConfig
    tokenizer: str
    sources: Mapping[str, Source]
    targets: Mapping[str, NDArray[np.int64]]

    @property
    def steps(self) -> int:
        """Training steps of a run."""
        return self.cfg.total_steps(rows_per_epoch=0)

    @property
    def tokens(self) -> int:
        """Training tokens of a run."""
        return self._rows * self.cfg.batch.seq_len

    @property
    def scored_tokens(self) -> int:
        """Tokens of all documents that are scored after a run."""
        sizes = {name: np.diff(self.sources[name].validation.offsets) for name in self.targets}
        return sum(int(sizes[name][numbers].sum()) for name, numbers in self.targets.items())

    def key(self, mixture: Mixture, seed: int) -> dict[str, Any]:
        """Everything that determines a run's result; names and paths do not."""
        recipe = {**self.cfg.dump(), "seed": seed}
        for path in _IDLE_KEYS:
            *parents, last = path.split(".")
            node = recipe
            for parent in parents:
                node = node[parent]
            if path != "batch.micro_rows" or not self.cfg.model.dropout:  # changes dropout masks
                del node[last]
        shares = {self.sources[name].fingerprint: share for name, share in mixture.shares.items()}
        return {
            "openllm": __version__,
            "recipe": recipe,
            "tokenizer": self.tokenizer,
            "mixture": {name: str(shares[name]) for name in sorted(shares)},
            "targets": {
                self.sources[name].fingerprint: digest_of(numbers.tolist())
                for name, numbers in self.targets.items()
            },
        }

    def path(self, mixture: Mixture, seed: int) -> Path:
        """Where the result of a run is stored."""
        return self.folder / RESULTS / f"{digest_of(self.key(mixture, seed))}.json"

    def result(self, mixture: Mixture, seed: int) -> dict[str, Any] | None:
        """The result of a run; None if it has not been done."""
        path = self.path(mixture, seed)
        if not path.exists():
            return None
        mend = "remove the file and repeat the command"
        found = read_json(path, DataError, mend)
        if not {"seconds", "nll"} <= found.keys():
            raise DataError(f"{path} is not the result of a run; {mend}")
        return found

    def loader(self, mixture: Mixture, seed: int) -> MixtureLoader:
        """The batches of a run; sources are in the order of their fingerprints."""
        sources = sorted(self._sources_of(mixture), key=lambda source: source.fingerprint)
        cfg = self.cfg.model_copy(update={"seed": seed})
        return MixtureLoader(
            [build_loader(cfg, source.train) for source in sources],
            [mixture.shares[source.name] for source in sources],
            micro_rows=cfg.batch.micro_rows,
        )

    def epochs(self, mixture: Mixture) -> dict[str, float]:
        """Epochs of each source in a run; 0 for those not in the mixture."""
        seen = self.loader(mixture, self.cfg.seed).epochs(self._rows)
        sources = sorted(self._sources_of(mixture), key=lambda source: source.fingerprint)
        by_name = {source.name: count for source, count in zip(sources, seen, strict=True)}
        return {name: by_name.get(name, 0.0) for name in self.sources}

    @property
    def _rows(self) -> int:
        return self.cfg.batch.rows_before(self.steps, self.steps)

    def _sources_of(self, mixture: Mixture) -> list[Source]:
        return [self.sources[name] for name in mixture.shares]


def run(bench: Bench, mixture: Mixture, seed: int, meter: Meter, label: str) -> None:
    """Train on a mixture, score the targets, keep the result.

    Raises:
        KeyboardInterrupt: it was interrupted; nothing is kept of this run.
        TrainingError: the model does not train with these settings.
    """
    cfg = bench.cfg.model_copy(update={"seed": seed})
    began = time.monotonic()
    trainer = build_trainer(cfg, bench.loader(mixture, seed))
    losses: list[float] = []
    trainer.hooks = [_Progress(meter, label, losses)]
    try:
        trainer.fit()
    except TrainingError as error:
        raise _diverged(mixture, seed) from error
    if trainer.stop_reason is not None and trainer.step < trainer.total_steps:
        raise KeyboardInterrupt
    meter.advance(0, f"{label}: scoring")
    nll = {name: _score(bench, name, trainer) for name in bench.targets}
    if not all(np.isfinite(values).all() for values in nll.values()):
        raise _diverged(mixture, seed)
    value = {
        "mixture": mixture.name,
        "key": bench.key(mixture, seed),
        "seconds": round(time.monotonic() - began, 2),
        "train_loss": float(np.mean(losses[-20:])),
        "nll": {bench.sources[name].fingerprint: values for name, values in nll.items()},
        "environment": describe_machine(cfg),
    }
    write_json(bench.path(mixture, seed), value)


def _score(bench: Bench, target: str, trainer: "Trainer") -> list[float]:
    """Nats of the text of each scored document, without the closing eos."""
    from openllm.train.scoring import score_documents

    shards, batch = bench.sources[target].validation, bench.cfg.batch
    with trainer.averaged() as model:
        scores = score_documents(
            model,
            [shards.document(int(number)) for number in bench.targets[target]],
            context=batch.seq_len,
            stride=batch.seq_len,
            batch_tokens=batch.micro_rows * batch.seq_len,
            precision=trainer.precision,
        )
    return [-float(score.logprobs[:-1].sum()) for score in scores]


def _diverged(mixture: Mixture, seed: int) -> TrainingError:
    return TrainingError(
        f"mixture {mixture.name} gave non-finite numbers with seed {seed}; repeat the command "
        "with a third of the learning rates (optim.lr=...), or with precision=fp32"
    )


class _Progress:
    """Advances the progress bar of all runs."""

    def __init__(self, meter: Meter, label: str, losses: list[float]) -> None:
        self.meter, self.label, self.losses = meter, label, losses
        self.tokens = 0

    def after_step(self, trainer: "Trainer", record: "StepRecord") -> None:
        """Count the tokens of the step."""
        self.losses.append(record.loss)
        self.meter.advance(record.tokens - self.tokens, f"{self.label}: loss {record.loss:.3f}")
        self.tokens = record.tokens

    def state_dict(self) -> dict[str, Any]:
        """Nothing: these runs are not resumed midway."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""


def digest_of(value: Any) -> str:
    """Sixteen hexadecimal digits that name a plain value."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
