# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Learning-rate schedules: a factor between 0 and 1 as a pure function of the step."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from openllm.core.config import Config
from openllm.core.errors import ConfigError

UNITS = ("steps", "tokens", "epochs")


def parse_duration(duration: str) -> tuple[float, str]:
    """Parse `4_000_000 tokens` as 4e6 and its unit, one of `UNITS`.

    Raises:
        ConfigError: it cannot be parsed or is not positive.
    """
    number, _, unit = duration.strip().partition(" ")
    unit = unit.strip()
    try:
        amount = float(number)
    except ValueError:
        amount = math.nan
    if unit not in UNITS or not amount > 0 or not math.isfinite(amount):
        raise ConfigError(
            f"cannot parse duration '{duration}'; write a positive number and a unit, such as "
            "'500 steps', '4_000_000 tokens' or '2 epochs'"
        )
    return amount, unit


def duration_steps(duration: str, *, tokens_per_step: float, steps_per_epoch: float) -> int:
    """Steps in a duration such as `500 steps`, `4_000_000 tokens` or `2 epochs`, rounded up.

    Raises:
        ConfigError: it cannot be parsed or is not positive.
    """
    amount, unit = parse_duration(duration)
    if unit == "tokens":
        amount /= tokens_per_step
    elif unit == "epochs":
        amount *= steps_per_epoch
    return math.ceil(amount - 1e-9)  # rounding may lift an integer slightly


class _Warmup(Config):
    warmup: float = Field(0.05, ge=0, lt=1, description="share of steps with rising learning rate")
    final: float = Field(
        0.0, ge=0, le=1, description="factor at the last step; wsd: one step after the last"
    )

    def _rise(self, step: int, steps: int) -> float | None:
        rising = math.ceil(self.warmup * steps)
        return (step + 1) / (rising + 1) if step < rising else None


class CosineConfig(_Warmup):
    """Linear warm-up, then cosine decay (arXiv:1608.03983)."""

    kind: Literal["cosine"] = "cosine"

    def factor(self, step: int, steps: int) -> float:
        """Learning-rate factor at `step` (from 0) of `steps`."""
        rise = self._rise(step, steps)
        if rise is not None:
            return rise
        begin = math.ceil(self.warmup * steps)
        done = (step - begin) / max(1, steps - 1 - begin)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))


class WSDConfig(_Warmup):
    """Linear warm-up, a constant phase, then linear decay (arXiv:2404.06395).

    The decay would reach `final` one step after the last, so no step is lost to a factor of 0.
    """

    kind: Literal["wsd"] = "wsd"
    decay: float = Field(0.4, ge=0, le=1, description="share of steps with falling learning rate")

    def factor(self, step: int, steps: int) -> float:
        """Learning-rate factor at `step` (from 0) of `steps`."""
        rise = self._rise(step, steps)
        if rise is not None:
            return rise
        falling = math.ceil(self.decay * steps)
        left = steps - step
        if left > falling:
            return 1.0
        return self.final + (1 - self.final) * left / (falling + 1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.warmup + self.decay > 1 + 1e-9:  # floating-point sums are inexact
            raise ValueError(
                f"warmup={self.warmup} and decay={self.decay} add up to more than the whole "
                "run (1.0); lower one of them"
            )
        return self


ScheduleConfig = Annotated[CosineConfig | WSDConfig, Field(discriminator="kind")]
