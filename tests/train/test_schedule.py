# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openllm.core.errors import ConfigError
from openllm.train.config import BatchConfig, PretrainConfig
from openllm.train.schedule import CosineConfig, WSDConfig, duration_steps

shares = st.floats(0, 0.99)
schedules = st.one_of(
    st.builds(CosineConfig, warmup=shares, final=st.floats(0, 1)),
    shares.flatmap(
        lambda warmup: st.builds(
            WSDConfig,
            warmup=st.just(warmup),
            decay=st.floats(0, 1 - warmup),
            final=st.floats(0, 1),
        )
    ),
)


def curve(schedule: CosineConfig | WSDConfig, steps: int) -> list[float]:
    return [schedule.factor(step, steps) for step in range(steps)]


@given(schedules, st.integers(1, 200))
def test_factors_lie_between_zero_and_one_and_rise_then_fall(
    schedule: CosineConfig | WSDConfig, steps: int
) -> None:
    factors = curve(schedule, steps)
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] > 0
    top = factors.index(max(factors))
    assert all(a <= b for a, b in pairwise(factors[: top + 1]))
    assert all(a >= b - 1e-12 for a, b in pairwise(factors[top:]))


@given(schedules, st.integers(1, 200))
def test_the_first_step_behind_the_warm_up_has_the_full_rate(
    schedule: CosineConfig | WSDConfig, steps: int
) -> None:
    if isinstance(schedule, WSDConfig) and schedule.warmup + schedule.decay > 0.9:
        return
    factors = curve(schedule, steps)
    if len(factors) > 10 and schedule.warmup < 0.9:
        assert max(factors) == pytest.approx(1.0)


def test_the_cosine_has_its_known_points() -> None:
    factors = curve(CosineConfig(warmup=0.0, final=0.1), 101)
    assert factors[0] == 1.0
    assert factors[50] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)


def test_warm_up_is_linear() -> None:
    factors = curve(CosineConfig(warmup=0.1), 100)
    assert factors[:11] == pytest.approx([(step + 1) / 11 for step in range(11)])


def test_wsd_is_flat_between_warm_up_and_decay() -> None:
    factors = curve(WSDConfig(warmup=0.1, decay=0.2), 100)
    assert factors[10:80] == [1.0] * 70
    assert factors[80:] == pytest.approx([left / 21 for left in range(20, 0, -1)])


def test_wsd_would_reach_its_end_one_step_behind_the_last() -> None:
    schedule = WSDConfig(warmup=0.1, decay=0.2, final=0.3)
    factors = curve(schedule, 100)
    assert factors[-1] == pytest.approx(0.3 + 0.7 / 21)
    assert schedule.factor(100, 100) == pytest.approx(0.3)


@pytest.mark.parametrize("final", [0.0, 0.5])
def test_wsd_without_decay_stays_at_the_full_rate(final: float) -> None:
    schedule = WSDConfig(warmup=0.1, decay=0, final=final)
    assert curve(schedule, 100)[10:] == [1.0] * 90
    assert curve(schedule, 1) == [0.5]  # its one step is the warm-up


def test_warm_up_and_decay_must_fit_into_the_run() -> None:
    with pytest.raises(ConfigError, match=r"warmup=0.5 and decay=0.6 add up to") as caught:
        WSDConfig.parse({"warmup": 0.5, "decay": 0.6}, "test")
    assert "lower one of them" in str(caught.value)
    for decay in (0.3, 0.7, 0.9, 0.95, 0.58):
        WSDConfig(warmup=1 - decay, decay=decay)
    assert CosineConfig(warmup=0.9).factor(89, 100) < 1


@pytest.mark.parametrize("schedule", [CosineConfig(), WSDConfig(), CosineConfig(warmup=0)])
def test_runs_of_one_and_two_steps_train(schedule: CosineConfig | WSDConfig) -> None:
    assert curve(schedule, 1)[0] > 0
    assert all(factor >= 0 for factor in curve(schedule, 2))
    assert max(curve(schedule, 2)) > 0


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("500 steps", 500),
        ("1.5 steps", 2),
        ("4_000_000 tokens", 4000),
        ("1001 tokens", 2),
        ("2 epochs", 5),
        ("0.1 epochs", 1),
        ("  3   steps ", 3),
        ("1e3 steps", 1000),
    ],
)
def test_durations_are_read(text: str, steps: int) -> None:
    assert duration_steps(text, tokens_per_step=1000, steps_per_epoch=2.5) == steps


@pytest.mark.parametrize(
    "text",
    ["", "5", "steps", "five steps", "0 steps", "-1 epochs", "nan steps", "inf tokens", "5 days"],
)
def test_other_durations_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="'500 steps'"):
        duration_steps(text, tokens_per_step=1000, steps_per_epoch=2.5)


def rows_of(batch: BatchConfig, steps: int) -> list[int]:
    before = [batch.rows_before(step, steps) for step in range(steps + 1)]
    return [stop - first for first, stop in pairwise(before)]


@given(st.integers(1, 20), st.integers(0, 20), st.floats(0.01, 1), st.integers(1, 300))
def test_the_batch_rises_from_its_start_and_never_falls(
    first: int, more: int, rise: float, steps: int
) -> None:
    batch = BatchConfig(tokens=8 * (first + more), seq_len=8, start=8 * first, rise=rise)
    rows = rows_of(batch, steps)
    assert all(first <= number <= first + more for number in rows)
    # rounding to whole rows may shift one row by one step
    assert all(later >= earlier - 1 for earlier, later in pairwise(rows))
    assert all(number == first + more for number in rows[round(rise * steps) + 1 :])
    if steps >= 100:
        assert sum(rows) * 8 == pytest.approx(batch.mean_tokens * steps, rel=0.02)


def test_without_a_start_all_steps_are_equal() -> None:
    assert rows_of(BatchConfig(tokens=48, seq_len=8), 5) == [6] * 5
    assert BatchConfig(tokens=48, seq_len=8).mean_tokens == 48


def test_a_rising_batch_makes_more_steps_of_a_duration() -> None:
    batch = {"tokens": 4096, "start": 1024, "rise": 0.5, "seq_len": 512}
    cfg = PretrainConfig.parse({"batch": batch, "duration": "1_000_000 tokens"}, "test")
    steps = cfg.total_steps(rows_per_epoch=0)
    assert steps == 301  # of 3,328 tokens on average, instead of 245
    assert sum(rows_of(cfg.batch, steps)) * 512 == pytest.approx(1_000_000, abs=4096)
    epochs = PretrainConfig.parse({"batch": batch, "duration": "2 epochs"}, "test")
    assert epochs.total_steps(rows_per_epoch=1000) == 308
