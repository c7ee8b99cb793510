# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.tiny import SHAPES, random_model

from openllm.core.runs import Run, read_metrics
from openllm.train.forecast import Band
from openllm.train.hooks import EARLY_STOP, Checkpoint, Metrics, Validate, Watch
from openllm.train.loop import StepRecord
from openllm.train.scoring import score_documents


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run.open(tmp_path / "run", {"seed": 0})
    run.rewind_metrics(0)
    yield run
    run.close()


def record(step: int, loss: float = 3.0, grad_norm: float = 1.0, **rest: Any) -> StepRecord:
    values = {"tokens": 100 * step, "lr": 0.01, "seconds": 0.5, "applied": True, **rest}
    return StepRecord(step=step, loss=loss, grad_norm=grad_norm, terms={"loss": loss}, **values)


def events(run: Run) -> list[dict[str, Any]]:
    if not run.events_path.exists():
        return []
    return [json.loads(line) for line in run.events_path.read_text().splitlines()]


class Scripted(Validate):
    """Validation with given losses."""

    def __init__(self, run: Run, losses: Sequence[float], patience: int | None = None) -> None:
        self.kept: list[tuple[int, float]] = []
        super().__init__(
            run,
            [],
            1000,
            every=10,
            context=8,
            batch_tokens=64,
            patience=patience,
            keep=lambda trainer, loss: self.kept.append((trainer.step, loss)),
        )
        self.losses = list(losses)

    def score(self, trainer: Any, model: Any) -> tuple[float, int]:
        return self.losses.pop(0) * 50, 50


class Averaged:
    """Replaces `Trainer.averaged`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None


def trainer_at(step: int, total: int = 1000, **rest: Any) -> Any:
    values = {"stop_reason": None, "averaged": Averaged, "rounding": None, "rounds": False}
    return SimpleNamespace(step=step, total_steps=total, **{**values, **rest})


def test_metrics_have_one_schema(run: Run) -> None:
    Metrics(run).after_step(trainer_at(1), record(1, seconds=0.123456))
    (line,) = read_metrics(run.folder)
    assert line == {
        "kind": "train",
        "step": 1,
        "tokens": 100,
        "loss": 3.0,
        "terms": {"loss": 3.0},
        "grad_norm": 1.0,
        "lr": 0.01,
        "applied": True,
        "seconds": 0.1235,
    }


def test_the_best_validation_is_kept_and_not_the_last(run: Run) -> None:
    validate = Scripted(run, [5.0, 4.0, 4.5, 3.9, 3.95])
    for step in range(1, 51):
        validate.after_step(trainer_at(step), record(step))
    assert validate.kept == [(10, 5.0), (20, 4.0), (40, 3.9)]
    lines = read_metrics(run.folder)
    assert [line["step"] for line in lines] == [10, 20, 30, 40, 50]
    assert lines[0]["bits_per_byte"] == pytest.approx(5.0 * 50 / math.log(2) / 1000)


def test_the_last_step_is_always_validated(run: Run) -> None:
    validate = Scripted(run, [5.0, 4.0])
    for step in range(1, 14):
        validate.after_step(trainer_at(step, total=13), record(step))
    assert [line["step"] for line in read_metrics(run.folder)] == [10, 13]


def test_training_stops_when_patience_ends(run: Run) -> None:
    validate = Scripted(run, [5.0, 4.0, 4.1, 3.9, 4.0, 4.0], patience=2)
    reasons = []
    for step in range(10, 61, 10):
        trainer = trainer_at(step)
        validate.after_step(trainer, record(step))
        reasons.append(trainer.stop_reason)
    assert reasons == [None] * 5 + [EARLY_STOP]
    assert [event["kind"] for event in events(run)] == ["early_stop"]
    stopped = trainer_at(60)
    stopped.stop_reason = EARLY_STOP
    assert Checkpoint.finished(stopped)
    stopped.stop_reason = "SIGINT"
    assert not Checkpoint.finished(stopped)


def test_weights_from_before_rounding_are_not_the_best(run: Run) -> None:
    validate = Scripted(run, [3.0, 3.1, 3.2, 3.5, 3.4, 3.6], patience=1)
    for step in (10, 20, 30):  # patience waits for rounding
        trainer = trainer_at(step, rounding=object())
        validate.after_step(trainer, record(step))
        assert trainer.stop_reason is None
    for step in (40, 50, 60):
        trainer = trainer_at(step, rounding=object(), rounds=True)
        validate.after_step(trainer, record(step))
    assert validate.kept == [(10, 3.0), (40, 3.5), (50, 3.4)]
    assert trainer.stop_reason is not None
    again = Scripted(run, [3.5])
    again.load_state_dict(validate.state_dict())
    again.after_step(trainer_at(70, rounding=object(), rounds=True), record(70))
    assert again.kept == []


def test_validation_goes_on_from_its_state(run: Run) -> None:
    validate = Scripted(run, [5.0, 5.1])
    for step in (10, 20):
        validate.after_step(trainer_at(step), record(step))
    again = Scripted(run, [5.05], patience=2)
    again.load_state_dict(json.loads(json.dumps(validate.state_dict())))
    trainer = trainer_at(30)
    again.after_step(trainer, record(30))
    assert trainer.stop_reason == EARLY_STOP and not again.kept


def test_validation_counts_text_tokens_and_bytes(run: Run) -> None:
    model = random_model(SHAPES["qwen3"]).eval()
    rng = np.random.default_rng(0)
    documents = [rng.integers(4, 600, size).astype(np.uint16) for size in (12, 40)]
    validate = Validate(
        run,
        documents,
        200,
        every=1,
        context=16,
        batch_tokens=64,
        patience=None,
        keep=lambda trainer, loss: None,
    )
    nats, count = validate.score(SimpleNamespace(precision="fp32"), model)
    assert count == 10 + 38  # without bos, which is given, and eos, which is no text
    scores = score_documents(model, documents, context=16, stride=16)
    assert nats == pytest.approx(-sum(s.logprobs[:-1].sum() for s in scores), rel=1e-6)


def watch_of(run: Run, band: Band | None = None) -> Watch:
    validate = Scripted(run, [])
    validate.latest = None
    return Watch(run, band, validate, bits_per_byte_per_nat=1.0)


def test_a_calm_run_is_not_disturbed(run: Run) -> None:
    watch = watch_of(run, Band("reference", ((1.0, 3.0), (100_000.0, 3.0))))
    for step in range(1, 100):
        watch.after_step(trainer_at(step), record(step, loss=3.0 + 0.1 * (step % 2)))
    assert events(run) == []


def test_exploding_gradients_are_told_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    watch = watch_of(run)
    for step in range(1, 41):
        watch.after_step(trainer_at(step), record(step, grad_norm=50.0 if step > 30 else 1.0))
    (event,) = events(run)
    assert (event["kind"], event["step"]) == ("gradients", 31)
    assert "50.0" in event["message"] and "lower learning rates" in event["message"]
    assert capsys.readouterr().err.count("gradient norm") == 1


def test_every_step_that_is_no_number_is_told(run: Run) -> None:
    watch = watch_of(run)
    for step in (1, 2):
        watch.after_step(trainer_at(step), record(step, loss=float("nan"), applied=False))
    assert [event["kind"] for event in events(run)] == ["nan", "nan"]
    assert not watch.losses and not watch.norms


@pytest.mark.parametrize(("loss", "words"), [(3.5, "learning"), (2.5, "held-out text")])
def test_a_loss_outside_the_band_is_told(run: Run, loss: float, words: str) -> None:
    watch = watch_of(run, Band("reference", ((1.0, 3.0), (100_000.0, 3.0))))
    for step in range(1, 60):
        watch.after_step(trainer_at(step), record(step, loss=loss))
    (event,) = events(run)
    assert (event["kind"], event["step"]) == ("band", 20)
    assert words in event["message"]
    assert "2.64" in event["message"]  # a limit of the band, 12 % around 3


def test_no_band_outside_the_reference_run(run: Run) -> None:
    watch = watch_of(run, Band("reference", ((1e6, 3.0), (1e7, 2.0))))
    for step in range(1, 60):
        watch.after_step(trainer_at(step), record(step, loss=9.0))
    assert events(run) == []


def test_training_and_validation_that_part_are_told(run: Run) -> None:
    watch = watch_of(run)
    watch.validate.latest, watch.validate.waited = 3.2, 0
    for step in range(1, 30):
        watch.after_step(trainer_at(step), record(step, loss=3.0))
    assert events(run) == []
    watch.validate.latest = 3.3
    for waited, told in ((1, 0), (2, 1)):
        watch.validate.waited = waited
        for step in range(30, 80):
            watch.after_step(trainer_at(step), record(step, loss=2.5))
        assert len(events(run)) == told
    (event,) = events(run)
    assert event["kind"] == "overfitting" and "model is overfitting" in event["message"]


def test_a_mean_that_lags_behind_a_falling_loss_is_no_overfitting(run: Run) -> None:
    watch = watch_of(run)
    watch.validate.latest, watch.validate.waited = 5.5, 0
    for step in range(1, 30):
        watch.after_step(trainer_at(step), record(step, loss=6.0))
    watch.validate.waited = 2
    for step in range(30, 80):
        watch.after_step(trainer_at(step), record(step, loss=5.45))
    assert events(run) == []


def test_the_watch_goes_on_from_its_state(run: Run) -> None:
    first, second = watch_of(run), watch_of(run)
    for step in range(1, 40):
        first.after_step(trainer_at(step), record(step, grad_norm=99.0 if step == 30 else 1.0))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.state_dict() == first.state_dict()
    second.after_step(trainer_at(40), record(40, grad_norm=99.0))
    assert len(events(run)) == 1
