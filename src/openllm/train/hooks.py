# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Training hooks: metrics, validation, warnings, checkpoints, progress."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openllm.checkpoint.train_state import save_state
from openllm.core.log import Meter, say, warn
from openllm.core.runs import Run
from openllm.train.forecast import Band
from openllm.train.loop import StepRecord, Trainer
from openllm.train.scoring import score_documents

EARLY_STOP = "early stop"


class Stateless:
    """A hook without state."""

    def state_dict(self) -> dict[str, Any]:
        """Return an empty dict."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


class Metrics(Stateless):
    """Logs one line per step."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def after_step(self, trainer: Trainer, record: StepRecord) -> None:
        """Append the record."""
        self.run.log_metrics(
            {
                "kind": "train",
                "step": record.step,
                "tokens": record.tokens,
                "loss": record.loss,
                "terms": record.terms,
                "grad_norm": record.grad_norm,
                "lr": record.lr,
                "applied": record.applied,
                "seconds": round(record.seconds, 4),
            }
        )


class Validate:
    """Scores held-out documents; keeps the best weights; stops when they no longer improve.

    Args:
        run: receives `validation` lines in its metrics.
        documents: token ids with bos and eos.
        text_bytes: total UTF-8 bytes of their text.
        every: steps between validations; the last step is always validated.
        context: maximum window length in tokens.
        batch_tokens: tokens per forward pass; as many as in training, so that memory suffices.
        patience: validations without improvement before training stops; None: never.
        keep: saves the best weights.
    """

    def __init__(
        self,
        run: Run,
        documents: Sequence[NDArray[np.integer]],
        text_bytes: int,
        *,
        every: int,
        context: int,
        batch_tokens: int,
        patience: int | None,
        keep: Callable[[Trainer, float], None],
    ) -> None:
        self.run = run
        self.documents = documents
        self.text_bytes = text_bytes
        self.every = every
        self.context = context
        self.batch_tokens = batch_tokens
        self.patience = patience
        self.keep = keep
        self.best: float | None = None
        self.waited = 0
        self.rounded = False
        self.latest: float | None = None

    def after_step(self, trainer: Trainer, record: StepRecord) -> None:
        """Validate if due."""
        if record.step % self.every and record.step != trainer.total_steps:
            return
        if trainer.rounds and not self.rounded:  # earlier weights were not made for few bits
            self.rounded, self.best, self.waited = True, None, 0
        with trainer.averaged() as model:
            nats, tokens = self.score(trainer, model)
        loss = nats / tokens
        self.latest = loss
        line = {
            "kind": "validation",
            "step": record.step,
            "tokens": record.tokens,
            "loss": loss,
            "bits_per_byte": nats / math.log(2) / self.text_bytes,
        }
        self.run.log_metrics(line)
        if math.isfinite(loss) and (self.best is None or loss < self.best):
            self.best, self.waited = loss, 0
            self.keep(trainer, loss)
        else:
            self.waited += trainer.rounds or trainer.rounding is None
            if self.patience is not None and self.waited >= self.patience:
                trainer.stop_reason = EARLY_STOP
                message = f"validation loss has not improved for {self.waited} checks; stopping"
                self.run.log_event("early_stop", record.step, message)
                say(message)

    def score(self, trainer: Trainer, model: Any) -> tuple[float, int]:
        """Return nats and number of text tokens (excluding the final eos)."""
        scores = score_documents(
            model,
            self.documents,
            context=self.context,
            stride=self.context,
            batch_tokens=self.batch_tokens,
            precision=trainer.precision,
        )
        nats = -sum(float(s.logprobs[:-1].sum()) for s in scores)
        return nats, sum(len(s.logprobs) - 1 for s in scores)

    def state_dict(self) -> dict[str, Any]:
        """Return best loss, latest loss, patience used, and whether they are of rounded weights."""
        names = ("best", "waited", "latest", "rounded")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self.best, self.waited = state["best"], state["waited"]
        self.latest, self.rounded = state["latest"], state.get("rounded", False)


class Watch:
    """Warns when a run goes wrong: once per kind of problem, but at each non-finite step.

    Args:
        run: receives the events.
        band: loss of runs like this one.
        validate: provides the latest validation loss.
        bits_per_byte_per_nat: conversion factor for this text.
        comparable: whether the training loss is a next-token loss, like band and validation.
    """

    SPAN = 20
    GAP = 0.15

    def __init__(
        self,
        run: Run,
        band: Band | None,
        validate: Validate,
        bits_per_byte_per_nat: float,
        *,
        comparable: bool = True,
    ) -> None:
        self.run = run
        self.comparable = comparable
        self.band = band
        self.validate = validate
        self.bits = bits_per_byte_per_nat
        self.losses: deque[float] = deque(maxlen=self.SPAN)
        self.norms: deque[float] = deque(maxlen=5 * self.SPAN)
        self.best_gap: float | None = None
        self.said: list[str] = []

    def after_step(self, trainer: Trainer, record: StepRecord) -> None:
        """Check the new numbers."""
        if not record.applied:
            self._tell(
                record.step,
                "nan",
                f"step {record.step} had a non-finite loss or gradient and was skipped. If this "
                "happens often, start over with lower learning rates or precision=fp32",
                always=True,
            )
            return
        if len(self.norms) >= self.SPAN and record.grad_norm > 10 * median(self.norms):
            self._tell(
                record.step,
                "gradients",
                f"step {record.step}: the gradient norm {record.grad_norm:.1f} is more than 10 "
                f"times its usual {median(self.norms):.1f}; if the loss rises too, start over with "
                "lower learning rates or a longer warm-up",
            )
        self.norms.append(record.grad_norm)
        self.losses.append(record.loss)
        if self.comparable and len(self.losses) == self.SPAN:
            self._check_band(record)
            self._check_gap(record)

    def _check_band(self, record: StepRecord) -> None:
        limits = self.band.at(record.tokens) if self.band else None
        if limits is None:
            return
        bpb = sum(self.losses) / self.SPAN * self.bits
        if bpb > limits[1]:
            self._tell(
                record.step,
                "band",
                f"step {record.step}: the loss is {bpb:.2f} bits per byte; similar runs had "
                f"between {limits[0]:.2f} and {limits[1]:.2f} at this point. Check the learning "
                "rates, the tokenizer and the data ('openllm data inspect')",
            )
        elif bpb < limits[0]:
            self._tell(
                record.step,
                "band",
                f"step {record.step}: the loss is {bpb:.2f} bits per byte, below the "
                f"{limits[0]:.2f} expected from similar runs: is the text very repetitive, or "
                "is held-out text in the training data?",
            )

    def _check_gap(self, record: StepRecord) -> None:
        if self.validate.latest is None:
            return
        gap = self.validate.latest - sum(self.losses) / self.SPAN
        self.best_gap = gap if self.best_gap is None else min(gap, self.best_gap)
        # early on the mean lags behind the falling loss; one validation may rise by chance
        if gap > max(0.0, self.best_gap) + self.GAP and self.validate.waited > 1:
            self._tell(
                record.step,
                "overfitting",
                f"step {record.step}: the training loss falls but the validation loss does not "
                f"(gap {gap:.2f} nats): the model is overfitting. More text, fewer epochs, "
                "dropout or weight decay help; the best weights so far are kept",
            )

    def _tell(self, step: int, kind: str, message: str, *, always: bool = False) -> None:
        if always or kind not in self.said:
            self.run.log_event(kind, step, message)
            warn(message)
            self.said.append(kind)

    def state_dict(self) -> dict[str, Any]:
        """Return the recent numbers and warnings."""
        return {
            "losses": list(self.losses),
            "norms": list(self.norms),
            "best_gap": self.best_gap,
            "said": self.said,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self.losses.extend(state["losses"])
        self.norms.extend(state["norms"])
        self.best_gap, self.said = state["best_gap"], list(state["said"])


class Checkpoint(Stateless):
    """Saves the run every `every` steps and when it stops."""

    def __init__(self, run: Run, *, every: int, keep: int) -> None:
        self.run = run
        self.every = every
        self.keep = keep

    def after_step(self, trainer: Trainer, record: StepRecord) -> None:
        """Save if due; must be the last hook, so that all others have seen the step."""
        last = record.step == trainer.total_steps or trainer.stop_reason is not None
        if record.step % self.every == 0 or last:
            self.save(trainer)

    @staticmethod
    def finished(trainer: Trainer) -> bool:
        """Whether training is complete."""
        return trainer.step >= trainer.total_steps or trainer.stop_reason == EARLY_STOP

    def save(self, trainer: Trainer) -> None:
        """Save now."""
        state = trainer.state()
        offset = self.run.metrics_offset()
        values = {**state.values, "metrics_offset": offset, "finished": self.finished(trainer)}
        state = replace(state, values=values)
        path = save_state(self.run.checkpoints, trainer.step, state, keep=self.keep)
        self.run.log_event("checkpoint", trainer.step, path.name)


class Progress(Stateless):
    """Progress bar with loss, speed, share of the machine's peak (MFU) and time left."""

    def __init__(self, meter: Meter, flops_per_token: float, peak_flops: float) -> None:
        self.meter = meter
        self.flops_per_token = flops_per_token
        self.peak_flops = peak_flops
        self.recent: deque[tuple[int, float]] = deque(maxlen=20)

    def after_step(self, trainer: Trainer, record: StepRecord) -> None:
        """Advance the bar."""
        tokens = int(record.tokens - self.meter.done)
        self.recent.append((tokens, record.seconds))
        rate = sum(t for t, _ in self.recent) / sum(s for _, s in self.recent)
        mfu = rate * self.flops_per_token / self.peak_flops
        detail = f"loss {record.loss:.3f}, MFU {mfu:.0%}"
        self.meter.advance(tokens, detail)
