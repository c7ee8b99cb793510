# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import signal
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests.tiny import SHAPES, random_model, random_shards

from openllm.core.errors import TrainingError
from openllm.data.loader import Batch, TokenLoader
from openllm.nn.model import Transformer
from openllm.train.hooks import Stateless
from openllm.train.loop import MAX_BAD_STEPS, StepRecord, Trainer
from openllm.train.objective import NextToken, Term
from openllm.train.optim import AdamWConfig, MuonConfig
from openllm.transform.precision import Precision


class Sometimes(NextToken):
    """Next-token loss that is not finite in some steps."""

    def __init__(self, bad: Sequence[int], value: float = float("nan")) -> None:
        self.bad = bad
        self.value = value
        self.calls = 0

    def terms(self, model: Transformer, batch: Batch) -> dict[str, Term]:
        self.calls += 1
        terms = super().terms(model, batch)
        factor = self.value if self.calls in self.bad else 1.0
        return {"loss": Term(terms["loss"].sum * factor)}


class Recorder(Stateless):
    """Keeps the records it is given."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    def after_step(self, trainer: Trainer, record: StepRecord) -> None:
        self.records.append(record)


def trainer_of(objective: NextToken | None = None, **changes: Any) -> Trainer:
    model = random_model(SHAPES["qwen3"])
    loader = TokenLoader(random_shards([20] * 30), seq_len=20, micro_rows=2, seed=0)
    values = {"total_steps": 8, "lr_factor": lambda _: 1.0, "hooks": [Recorder()], **changes}
    optimizers = MuonConfig(lr=0.01, adamw=AdamWConfig(lr=1e-3)).build(model)

    def batches(step: int) -> list[Batch]:
        return loader.batches(2 * step, 2 * step + 2)

    return Trainer(model, objective or NextToken(), optimizers, batches, **values)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def test_records_tell_what_happened() -> None:
    trainer = trainer_of(lr_factor=lambda step: (step + 1) / 8)
    trainer.fit()
    records = trainer.hooks[0].records
    assert [r.step for r in records] == list(range(1, 9))
    assert [r.tokens for r in records] == [40 * n for n in range(1, 9)]
    assert [r.lr for r in records] == pytest.approx([0.01 * n / 8 for n in range(1, 9)])
    assert all(r.applied and r.terms == {"loss": r.loss} for r in records)
    assert records[-1].loss < records[0].loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_no_number_is_skipped(value: float) -> None:
    trainer = trainer_of(Sometimes([2], value))
    trainer.train_step()
    before = weights(trainer)
    record = trainer.train_step()
    assert not record.applied and trainer.bad_steps == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(trainer).items())
    record = trainer.train_step()
    assert record.applied and trainer.bad_steps == 0
    assert all(torch.isfinite(tensor).all() for tensor in weights(trainer).values())


def test_bad_steps_now_and_then_do_not_end_a_run() -> None:
    trainer = trainer_of(Sometimes([1, 2, 3, 4, 6, 7, 8]))
    trainer.fit()
    assert trainer.step == 8


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_bad_steps_in_a_row_end_a_run_and_say_what_to_change(precision: Precision) -> None:
    trainer = trainer_of(Sometimes(range(100)), total_steps=50, precision=precision)
    with pytest.raises(TrainingError, match=r"--fresh .* third of the learning rates") as caught:
        trainer.fit()
    # a run folder refuses other settings, and a run in fp32 cannot be made wider
    assert ("precision=fp32" in str(caught.value)) == (precision == "bf16")
    assert trainer.step == MAX_BAD_STEPS
    assert len(trainer.hooks[0].records) == MAX_BAD_STEPS


def test_clipping_bounds_the_gradient_but_reports_its_norm() -> None:
    def gradient_norm(clip: float) -> tuple[float, float]:
        seen = []

        class Seeing(torch.optim.SGD):
            def step(self) -> None:  # type: ignore[override]
                norms = [p.grad.norm() for p in self.param_groups[0]["params"]]
                seen.append(torch.stack(norms).norm().item())

        model = random_model(SHAPES["qwen3"])
        loader = TokenLoader(random_shards([20] * 30), seq_len=20, micro_rows=2, seed=0)
        trainer = Trainer(
            model,
            NextToken(),
            [Seeing(model.parameters(), lr=1.0)],
            lambda _: loader.batches(0, 2),
            total_steps=1,
            lr_factor=lambda _: 1.0,
            clip_norm=clip,
        )
        return trainer.train_step().grad_norm, seen[0]

    reported, used = gradient_norm(0.01)
    assert used == pytest.approx(0.01, rel=1e-3) and reported > 0.1
    assert gradient_norm(0) == pytest.approx((reported, reported), rel=1e-5)


def test_the_moving_average_is_the_one_that_its_formula_says() -> None:
    trainer = trainer_of(ema_decay=0.6)
    expected = weights(trainer)
    for step in range(8):
        trainer.train_step()
        decay = min(0.6, (1 + step) / (10 + step))
        now = weights(trainer)
        expected = {name: decay * old + (1 - decay) * now[name] for name, old in expected.items()}
    for name, tensor in trainer.best_guess().items():
        assert torch.allclose(tensor, expected[name], atol=1e-6)
        assert not torch.equal(tensor, now[name])


def test_averaged_lends_the_average_and_gives_the_weights_back() -> None:
    trainer = trainer_of(ema_decay=0.9)
    trainer.fit()
    before = weights(trainer)
    with pytest.raises(RuntimeError), trainer.averaged() as model:
        inside = dict(model.named_parameters())
        assert all(torch.equal(inside[name], tensor) for name, tensor in trainer.ema.items())
        raise RuntimeError
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(trainer).items())
    without = trainer_of()
    with without.averaged() as model:
        assert model is without.model


def test_skipped_steps_leave_the_average_alone() -> None:
    trainer = trainer_of(Sometimes([2]), ema_decay=0.9)
    trainer.train_step()
    before = {name: tensor.clone() for name, tensor in trainer.ema.items()}
    trainer.train_step()
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.ema.items())


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_run_goes_on_from_its_state_bit_by_bit(ema: float | None) -> None:
    cfg_dropout = {"ema_decay": ema, "seed": 3}
    straight = trainer_of(**cfg_dropout)
    straight.fit()
    first = trainer_of(**cfg_dropout)
    for _ in range(3):
        first.train_step()
    state = first.state()
    second = trainer_of(**cfg_dropout)
    second.load_state(state)
    second.hooks = [Recorder()]
    second.fit()
    told = [(r.step, r.loss, r.grad_norm) for r in second.hooks[0].records]
    assert told == [(r.step, r.loss, r.grad_norm) for r in straight.hooks[0].records[3:]]
    for name, tensor in straight.best_guess().items():
        assert torch.equal(tensor, second.best_guess()[name])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_run_after_the_step_at_hand(number: signal.Signals) -> None:
    class Raise(Stateless):
        def after_step(self, trainer: Trainer, record: StepRecord) -> None:
            if record.step == 3:
                signal.raise_signal(number)

    before = signal.getsignal(number)
    trainer = trainer_of(hooks=[Raise(), Recorder()])
    trainer.fit()
    assert trainer.stop_reason == number.name
    assert [r.step for r in trainer.hooks[1].records] == [1, 2, 3]
    assert signal.getsignal(number) is before


def test_the_second_signal_ends_a_run_at_once() -> None:
    class Twice(Stateless):
        def after_step(self, trainer: Trainer, record: StepRecord) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trainer_of(hooks=[Twice()]).fit()
