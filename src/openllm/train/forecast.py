# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Forecast a run before its first step: time, peak memory, expected loss."""

import json
import math
import time
import weakref
from bisect import bisect_left
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from openllm.core.errors import TrainingError
from openllm.core.log import format_duration
from openllm.data.loader import Batch
from openllm.nn.cost import parameters
from openllm.nn.heads import cross_entropy_sum
from openllm.nn.model import Transformer
from openllm.train.config import PretrainConfig
from openllm.train.objective import NextToken
from openllm.train.optim import MuonConfig, OptimConfig
from openllm.transform.memory import checkpoint_activations
from openllm.transform.precision import Precision, arithmetic

if TYPE_CHECKING:
    from openllm.train.loop import Trainer

WIDTH = 0.12
"""Half-width of the loss band, relative to the reference curve."""

PROCESS_BYTES = 350 * 2**20
"""Resident memory of the interpreter with torch loaded, plus library workspaces."""

ALLOCATOR_SLACK = 1.25
"""Ratio of resident to live bytes where the allocator keeps freed blocks: fragmentation."""


@dataclass(frozen=True)
class Band:
    """Loss of runs like this one, in bits per byte, by tokens seen."""

    reference: str
    curve: tuple[tuple[float, float], ...]

    def at(self, tokens: float) -> tuple[float, float] | None:
        """Lower and upper bound after `tokens`, or None outside the reference run."""
        xs = [point[0] for point in self.curve]
        if not xs[0] <= tokens <= xs[-1]:
            return None
        right = max(1, bisect_left(xs, tokens))
        (x0, y0), (x1, y1) = self.curve[right - 1], self.curve[right]
        share = math.log(tokens / x0) / math.log(x1 / x0)
        middle = y0 + share * (y1 - y0)
        return middle * (1 - WIDTH), middle * (1 + WIDTH)


def expected_band(corpus: str, parameters: int, tokens: int) -> Band | None:
    """Return the band of the most similar reference run, or None if none is similar.

    Similar means the same kind of corpus, half to twice the parameters, and a curve that
    reaches at least half of `tokens`; the nearest in size and length wins.
    """
    path = resources.files("openllm.train") / "reference_runs.json"
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    near = []
    for run in runs:
        size, length = run["parameters"] / parameters, run["curve"][-1][0] / tokens
        if run["corpus"] == corpus and 0.5 <= size <= 2 and length >= 0.5:
            near.append((abs(math.log(size)) + abs(math.log(length)), run))
    if not near:
        return None
    best = min(near, key=lambda pair: pair[0])[1]
    return Band(best["name"], tuple((float(x), float(y)) for x, y in best["curve"]))


def matmul_peak(precision: Precision, device: torch.device, seconds: float = 0.5) -> float:
    """Measure this machine's peak throughput of matrix products, in FLOP/s."""
    size = 2048
    a = torch.randn(size, size, device=device)
    if precision == "bf16":
        a = a.bfloat16()
    _synchronize(device, a @ a)
    best = 0.0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        _synchronize(device, a @ a)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def _synchronize(device: torch.device, result: torch.Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def optimizer_flops(model: Transformer, optim: OptimConfig) -> int:
    """FLOPs of an optimizer step's matrix products: Muon's Newton-Schulz iterations."""
    if not isinstance(optim, MuonConfig):
        return 0
    total = 0
    for block in model.layers:
        for parameter in block.parameters():
            if parameter.ndim == 2:
                short, long = sorted(parameter.shape)
                total += optim.ns_steps * (4 * short * short * long + 2 * short**3)
    return total


def peak_bytes(cfg: PretrainConfig) -> int:
    """Peak resident memory of a process running a resolved recipe."""
    slack = 1.0 if cfg.activation_checkpointing else ALLOCATOR_SLACK
    folders = [Path(folder) for folder in cfg.distill.teachers] if cfg.distill else []
    teachers = sum(file.stat().st_size for path in folders for file in path.glob("*.safetensors"))
    return int(PROCESS_BYTES + teachers + slack * training_bytes(cfg))


def training_bytes(cfg: PretrainConfig) -> int:
    """Peak bytes of live tensors in a step of a resolved recipe, traced with fake tensors."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    optim, batch = cfg.optim, cfg.batch
    if isinstance(optim, MuonConfig):
        # the first two iterations reach the overall peak
        optim = optim.model_copy(update={"ns_steps": min(2, optim.ns_steps)})
    precision: Precision = "bf16" if cfg.precision == "bf16" else "fp32"
    live = _LiveBytes()
    with FakeTensorMode(), live:
        model = Transformer(cfg.model)
        if cfg.activation_checkpointing:
            checkpoint_activations(model)
        average = [torch.empty_like(p) for p in model.parameters()] if cfg.ema else []
        optimizers = optim.build(model)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for optimizer in [*optimizers, *optimizers]:  # all state exists from the second step on
            optimizer.step()
        if batch.rows <= batch.micro_rows:  # else gradients persist across micro-batches
            model.zero_grad()
        tokens = torch.zeros(min(batch.micro_rows, batch.rows), batch.seq_len, dtype=torch.long)
        with arithmetic(precision, "cpu"):
            # the embedding's two gradients are added in place, but not for fake tensors
            embedding = model.embed_tokens.weight.detach()
            embeds = torch.nn.functional.embedding(tokens, embedding).requires_grad_()
            if cfg.model.research.value_embeddings:  # they need token ids
                states = model(tokens).x.flatten(0, 1)
            else:
                states = model(embeds=embeds).x.flatten(0, 1)
            loss = cross_entropy_sum(states, model.head, tokens.flatten())
        loss.backward()
        del states, loss, embeds
        last = torch.zeros_like(embedding)
        if not cfg.model.tie_embeddings:
            model.embed_tokens.weight.grad = last
        del last
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        del average
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors created by operations, until their storage is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        self.peak = max(self.peak, self.now)
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def gone(_: object) -> None:
            del self._storages[key]
            self.now -= size

        self._storages[key] = weakref.ref(storage, gone)
        self.now += size


@dataclass(frozen=True)
class Forecast:
    """Made before the first step and written to `forecast.json`."""

    steps: int
    tokens: int
    seconds: float
    peak_bytes: int
    tokens_per_second: float
    matmul_flops: float
    band: Band | None

    def lines(self, done: int = 0) -> list[str]:
        """Describe the rest of the run after `done` steps."""
        left = 1 - done / self.steps
        limits = self.band.at(self.tokens) if self.band else None
        if limits and self.band:
            loss = (
                f"expected final loss {limits[0]:.2f} to {limits[1]:.2f} bits per byte "
                f"(as in the reference run {self.band.reference})"
            )
        else:
            loss = "expected final loss unknown, as no reference run is similar to this one"
        return [
            f"forecast: {self.steps - done:,} steps, {round(left * self.tokens):,} tokens in about "
            f"{format_duration(left * self.seconds)} at {self.tokens_per_second:,.0f} tokens/s; "
            f"peak memory about {self.peak_bytes / 2**30:.1f} GiB",
            f"forecast: {loss}",
        ]

    def dump(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "steps": self.steps,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 1),
            "peak_bytes": self.peak_bytes,
            "tokens_per_second": round(self.tokens_per_second, 1),
            "matmul_flops": self.matmul_flops,
            "band": None
            if self.band is None
            else {"reference": self.band.reference, "width": WIDTH, "curve": self.band.curve},
        }


def forecast(
    cfg: PretrainConfig, trainer: "Trainer", corpus: str, held_out_tokens: int
) -> Forecast:
    """Time one micro-batch, trace its memory, look up the loss of similar runs.

    Validation scores `cfg.validation.tokens` held-out tokens, or all if there are fewer.
    """
    batch = trainer.batches(0)[0]
    micro = _probe_seconds(trainer, batch)
    peak = matmul_peak(trainer.precision, trainer.device)
    steps = trainer.total_steps
    tokens = cfg.batch.rows_before(steps, steps) * cfg.batch.seq_len
    step = micro / batch.tokens.size * tokens / steps
    step += optimizer_flops(trainer.model, cfg.optim) / peak
    every = cfg.validation.every or max(1, steps // 20)
    # a forward pass takes about a third of a training step
    check = min(cfg.validation.tokens, held_out_tokens) / batch.tokens.size * micro / 3
    return Forecast(
        steps=steps,
        tokens=tokens,
        seconds=steps * (step + check / every),
        peak_bytes=peak_bytes(cfg),
        tokens_per_second=tokens / steps / step,
        matmul_flops=peak,
        # a distillation loss is not comparable
        band=None if cfg.distill else expected_band(corpus, parameters(cfg.model).total, tokens),
    )


def _probe_seconds(trainer: "Trainer", batch: Batch, *, repeats: int = 3) -> float:
    """Median seconds of a forward and backward pass over `repeats`, after one warm-up."""
    trainer.model.train()
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        trainer.backward([batch])
        times.append(time.perf_counter() - start)
    trainer.model.zero_grad()
    return sorted(times[1:])[repeats // 2]


def training_rate(cfg: PretrainConfig, *, document_tokens: int, seconds: float) -> float:
    """Measure tokens per second of full training steps of a resolved recipe for `seconds`.

    Tokens are random, in documents of `document_tokens`.
    """
    from openllm.train.assemble import assemble

    shape = (cfg.batch.micro_rows, cfg.batch.seq_len)
    total = cfg.batch.micro_rows * cfg.batch.seq_len
    rows = range(0, total + 1, cfg.batch.seq_len)
    borders = tuple(sorted({*rows, *range(0, total, document_tokens)}))
    tokens = np.random.default_rng(0).integers(cfg.model.vocab_size, size=shape)
    positions = np.broadcast_to(np.arange(cfg.batch.seq_len), shape).copy()
    batch = Batch(tokens, tokens, positions, borders)
    batches = [batch] * -(-cfg.batch.rows // cfg.batch.micro_rows)
    trainer = assemble(cfg, NextToken(), lambda step: batches, total_steps=1_000_000)
    trainer.model.train()
    trainer.train_step()
    began, times = time.perf_counter(), []
    while not times or time.perf_counter() - began < seconds:
        times.append(trainer.train_step().seconds)
    return len(batches) * tokens.size / sorted(times)[len(times) // 2]


def out_of_memory(cfg: PretrainConfig) -> TrainingError:
    """Build the error that says what to change and what that needs."""
    batch = cfg.batch
    choices = []
    if batch.micro_rows > 1:
        choices.append((f"batch.micro_rows={batch.micro_rows // 2}", batch.micro_rows // 2, False))
    if not cfg.activation_checkpointing:
        choices.append(("activation_checkpointing=true", batch.micro_rows, True))
    if batch.micro_rows > 1:
        choices.append(("batch.micro_rows=1 activation_checkpointing=true", 1, True))
    advice = []
    for words, rows, recompute in choices:
        smaller = cfg.model_copy(
            update={
                "batch": batch.model_copy(update={"micro_rows": rows}),
                "activation_checkpointing": recompute or cfg.activation_checkpointing,
            }
        )
        advice.append(f"{words} (about {peak_bytes(smaller) / 2**30:.1f} GiB)")
    # these settings are in `MACHINE_KEYS` (core/runs.py), so a run folder accepts them
    same = "up to the dropout masks" if cfg.model.dropout else "up to rounding"
    words = (
        f"repeat the command with one of: {'; '.join(advice)}. The run continues where it "
        f"stopped, and its result stays the same {same}"
    )
    return TrainingError(
        f"out of memory: this recipe needs about {peak_bytes(cfg) / 2**30:.1f} GiB; "
        + (words if advice else "choose a smaller model or shorter rows (batch.seq_len)")
    )
