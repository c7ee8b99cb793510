# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The training loop."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from openllm.checkpoint.train_state import TrainState, flatten_optimizers, restore_optimizers
from openllm.core.errors import TrainingError
from openllm.data.loader import Batch
from openllm.nn.model import Transformer
from openllm.train.objective import Objective
from openllm.transform.precision import Precision, arithmetic
from openllm.transform.quantize_aware import Rounding

MAX_BAD_STEPS = 5
"""Training stops after this many consecutive non-finite steps, each skipped."""


@dataclass
class StepRecord:
    """Result of one step; becomes a line of `metrics.jsonl`."""

    step: int
    tokens: int
    loss: float
    grad_norm: float
    lr: float
    seconds: float
    applied: bool
    terms: dict[str, float] = field(default_factory=dict)


class Hook(Protocol):
    """A callback after each step of a run."""

    def after_step(self, trainer: "Trainer", record: StepRecord) -> None:
        """Called after each step, in the order of the trainer's hooks."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return plain values that must survive a restart."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        ...


class Trainer:
    """Minimises an objective; knows nothing about files, terminals or datasets.

    Every random number is a function of (seed, step, micro-batch), so a resumed run repeats
    the same numbers without saved generator state.
    """

    def __init__(
        self,
        model: Transformer,
        objective: Objective,
        optimizers: Sequence[Optimizer],
        batches: Callable[[int], list[Batch]],
        *,
        total_steps: int,
        lr_factor: Callable[[int], float],
        precision: Precision = "fp32",
        clip_norm: float = 1.0,
        ema_decay: float | None = None,
        rounding: Rounding | None = None,
        round_from: int = 0,
        seed: int = 0,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self.model = model
        self.objective = objective
        self.optimizers = list(optimizers)
        self.batches = batches
        self.total_steps = total_steps
        self.lr_factor = lr_factor
        self.precision: Precision = precision
        self.clip_norm = clip_norm
        self.ema_decay = ema_decay
        self.rounding = rounding
        self.round_from = round_from
        self.seed = seed
        self.hooks = list(hooks)
        self.step = 0
        self.tokens = 0
        self.bad_steps = 0
        self.stop_reason: str | None = None
        self.ema: dict[str, Tensor] | None = None
        if ema_decay is not None:
            self.ema = {name: p.detach().clone() for name, p in model.named_parameters()}
        self._base_lr = [[g["lr"] for g in o.param_groups] for o in self.optimizers]

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.embed_tokens.weight.device

    @property
    def rounds(self) -> bool:
        """Whether the model is shown, and will be stored with, rounded weights by now."""
        return self.rounding is not None and self.step >= self.round_from

    def _rounded(self) -> AbstractContextManager[None]:
        if self.rounding is None or not self.rounds:
            return nullcontext()
        return self.rounding.applied(self.model)

    def fit(self) -> None:
        """Train up to `total_steps`; Ctrl-C or SIGTERM stops after the current step.

        Raises:
            TrainingError: loss or gradients stay non-finite.
        """
        self.model.train()
        with _stop_signals(self):
            while self.step < self.total_steps and self.stop_reason is None:
                record = self.train_step()
                for hook in self.hooks:
                    hook.after_step(self, record)
                if self.bad_steps >= MAX_BAD_STEPS:
                    wider = " or precision=fp32" if self.precision != "fp32" else ""
                    raise TrainingError(
                        f"{MAX_BAD_STEPS} steps in a row had a non-finite loss or gradient (now at "
                        f"step {self.step}); start over, with --fresh or another --out, and with "
                        f"a third of the learning rates{wider}"
                    )

    def train_step(self) -> StepRecord:
        """Run one optimizer step over accumulated micro-batches."""
        began = time.perf_counter()
        factor = self.lr_factor(self.step)
        for optimizer, rates in zip(self.optimizers, self._base_lr, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        batches = self.batches(self.step)
        with self._rounded():
            sums = self.backward(batches)
        loss = sum(sums.values())
        norm = self._clip()
        applied = bool(np.isfinite(loss) and np.isfinite(norm))
        if applied:
            for optimizer in self.optimizers:
                optimizer.step()
            self._update_ema()
        self.bad_steps = 0 if applied else self.bad_steps + 1
        self.model.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += sum(batch.tokens.size for batch in batches)
        seconds = time.perf_counter() - began
        lr = self.optimizers[0].param_groups[0]["lr"]
        return StepRecord(self.step, self.tokens, loss, norm, lr, seconds, applied, sums)

    def backward(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Accumulate the gradients of a step; return the weighted mean of each term."""
        counts = self.objective.counts(batches)
        sums: dict[str, float] = {}
        for number, batch in enumerate(batches):
            torch.manual_seed(_mix(self.seed, self.step, number))
            with arithmetic(self.precision, self.device.type):
                terms = self.objective.terms(self.model, batch)
            parts = {
                name: term.weight * term.sum / max(1, counts[name]) for name, term in terms.items()
            }
            torch.stack(list(parts.values())).sum().backward()
            for name, part in parts.items():
                sums[name] = sums.get(name, 0.0) + part.item()
        return sums

    def _clip(self) -> float:
        """Clip gradients to `clip_norm`; return their total norm before clipping."""
        parameters = list(self.model.parameters())
        total = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = total.item()
        if 0 < self.clip_norm < norm:  # saves a pass that would multiply all gradients by 1
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, total)
        return norm

    @torch.no_grad()
    def _update_ema(self) -> None:
        if self.ema is None or self.ema_decay is None:
            return
        # early averages forget the random initialisation faster
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        values = [p.detach() for p in self.model.parameters()]
        torch._foreach_lerp_(list(self.ema.values()), values, 1 - decay)

    def best_guess(self) -> dict[str, Tensor]:
        """Weights to validate and export, before any rounding: the EMA if enabled."""
        return self.ema if self.ema is not None else dict(self.model.state_dict())

    @contextmanager
    def averaged(self) -> Iterator[Transformer]:
        """Yield the model as it is validated, for a `with` block: EMA weights, then rounding."""
        if self.ema is None:
            with self._rounded():
                yield self.model
            return
        held = {name: p.data for name, p in self.model.named_parameters()}
        for name, parameter in self.model.named_parameters():
            parameter.data = self.ema[name]
        try:
            with self._rounded():
                yield self.model
        finally:
            for name, parameter in self.model.named_parameters():
                parameter.data = held[name]

    def state(self) -> TrainState:
        """Return all that is needed to resume; tensors are not copied."""
        return TrainState(
            weights=self.model.state_dict(),
            optimizer=flatten_optimizers(self.optimizers),
            ema=self.ema,
            values={
                "step": self.step,
                "tokens": self.tokens,
                "bad_steps": self.bad_steps,
                "hooks": [hook.state_dict() for hook in self.hooks],
            },
        )

    def load_state(self, state: TrainState) -> None:
        """Resume from a checkpoint."""
        self.model.load_state_dict(state.weights)
        restore_optimizers(self.optimizers, state.optimizer)
        if self.ema is not None and state.ema is not None:
            for name, tensor in state.ema.items():
                self.ema[name].copy_(tensor)
        self.step = state.values["step"]
        self.tokens = state.values["tokens"]
        self.bad_steps = state.values["bad_steps"]
        for hook, values in zip(self.hooks, state.values["hooks"], strict=True):
            hook.load_state_dict(values)


def _mix(*numbers: int) -> int:
    """Derive one 63-bit seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def _stop_signals(trainer: Trainer) -> Iterator[None]:
    """Stop after the current step at the first SIGINT or SIGTERM, at once at the second."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if trainer.stop_reason is not None:
            raise KeyboardInterrupt
        trainer.stop_reason = signal.Signals(number).name

    old = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
