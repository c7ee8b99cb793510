# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The settings of a pre-training run. Importable without torch."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from openllm.core.config import Config
from openllm.core.errors import ConfigError
from openllm.nn.config import ModelConfig
from openllm.train.optim import AdamWConfig, OptimConfig
from openllm.train.schedule import CosineConfig, ScheduleConfig, duration_steps, parse_duration


def _read_scale(value: Any) -> int:
    """Parse `12M` as 12,000,000."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([MB]?)", str(value), re.IGNORECASE)
    if not found:
        raise ValueError("write a number of parameters such as 12M or 1B")
    return round(float(found[1]) * {"": 1, "m": 1e6, "b": 1e9}[found[2].lower()])


Scale = Annotated[int, Field(ge=1_000_000, le=1_000_000_000), BeforeValidator(_read_scale)]
"""A parameter count such as 12M or 1B."""


class BatchConfig(Config):
    """Tokens per step and their layout."""

    tokens: int = Field(8192, ge=1, description="tokens per step")
    start: int | None = Field(
        None,
        ge=1,
        description="tokens of the first step, rising linearly to tokens; none: constant",
    )
    rise: float = Field(0.3, gt=0, le=1, description="share of steps that rise from start")
    seq_len: int = Field(512, ge=2, description="tokens per row")
    micro_rows: int = Field(4, ge=1, description="rows per forward pass; fewer need less memory")
    reshuffle: bool = Field(True, description="shuffle the documents anew in each epoch")

    @property
    def rows(self) -> int:
        """Rows per step, after any rise."""
        return self.tokens // self.seq_len

    @property
    def mean_tokens(self) -> float:
        """Mean tokens per step of a long run."""
        start = self.tokens if self.start is None else self.start
        return self.tokens - (self.tokens - start) * self.rise / 2

    def rows_before(self, step: int, steps: int) -> int:
        """Rows that a run of `steps` steps shows before `step` (from 0)."""
        if self.start is None:
            return step * self.rows
        rising = max(1, round(self.rise * steps))
        first = self.start // self.seq_len
        risen = min(step, rising)
        rows = first * risen + (self.rows - first) * risen**2 // (2 * rising)
        return rows + (step - risen) * self.rows


class ValidationConfig(Config):
    """When to score held-out text during training."""

    every: int | None = Field(None, ge=1, description="steps; none: a twentieth of the run")
    tokens: int = Field(65_536, ge=1, description="approximate number of tokens to score")
    patience: int | None = Field(
        None, ge=1, description="validations without improvement before stopping"
    )


class CheckpointConfig(Config):
    """When to save checkpoints."""

    every: int | None = Field(None, ge=1, description="steps; none: a twentieth of the run")
    keep: int = Field(2, ge=1, description="how many of the newest checkpoints to keep")


class DistillConfig(Config):
    """Distillation from an ensemble of trained models (arXiv:2509.14786), besides the text."""

    teachers: list[str] = Field(min_length=1, description="model folders with the same tokenizer")
    share: float = Field(0.5, gt=0, le=1, description="teachers' weight; the text gets the rest")


class QuantizeConfig(Config):
    """Training for few bits: the end of a run sees its weights rounded, and so is the model."""

    bits: Literal[8, 4] = Field(4, description="of the layers; embedding and head have 8")
    group: Literal[32, 64, 128] = Field(32, description="weights that share a scale")
    start: float = Field(0.8, ge=0, lt=1, description="share of the run before rounding begins")


class PretrainConfig(Config):
    """The settings of a pre-training run."""

    data: str | None = Field(None, description="folder made by 'openllm data prepare'")
    tokenizer: str | None = Field(None, description="folder made by 'openllm tokenizer train'")
    scale: Scale | None = Field(
        None, description="block parameters; sets sizes, learning rates, batch, weight decay"
    )
    model: ModelConfig = ModelConfig()
    batch: BatchConfig = BatchConfig()
    duration: str = "1 epochs"
    optim: OptimConfig = AdamWConfig()
    schedule: ScheduleConfig = CosineConfig()
    distill: DistillConfig | None = None
    quantize: QuantizeConfig | None = None
    clip_norm: float = Field(1.0, ge=0, description="0: no clipping")
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the average of the weights")
    activation_checkpointing: bool = False
    compile: bool | Literal["auto"] = Field(
        "auto", description="torch.compile; auto: only on a GPU, as the CPU has its own kernels"
    )
    validation: ValidationConfig = ValidationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = Field(None, ge=1, description="none: one per core")
    seed: int = Field(0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            parse_duration(self.duration)
            if self.scale is None:  # else `scale` fills in the rest later
                self.check_rows()
        except ConfigError as error:
            raise ValueError(str(error)) from None  # the caller prepends the recipe's name
        return self

    def total_steps(self, rows_per_epoch: int) -> int:
        """Steps of the run; 0 rows per epoch serve a duration in another unit than epochs."""
        tokens = self.batch.mean_tokens
        steps_per_epoch = rows_per_epoch * self.batch.seq_len / tokens
        return duration_steps(
            self.duration, tokens_per_step=tokens, steps_per_epoch=steps_per_epoch
        )

    def check_rows(self) -> None:
        """Check that rows fit the model's context and that a step is a whole number of rows.

        Raises:
            ConfigError: one of them does not hold.
        """
        batch = self.batch
        for name, tokens in (("tokens", batch.tokens), ("start", batch.start or batch.tokens)):
            if tokens % batch.seq_len:
                nearest = max(1, round(tokens / batch.seq_len)) * batch.seq_len
                raise ConfigError(
                    f"batch.{name}={tokens} is not a multiple of batch.seq_len={batch.seq_len}; "
                    f"try {nearest}"
                )
        if batch.start is not None and batch.start > batch.tokens:
            raise ConfigError(
                f"batch.start={batch.start} is greater than batch.tokens={batch.tokens}; a batch "
                "can only grow"
            )
        if batch.seq_len > self.model.max_positions:
            raise ConfigError(
                f"batch.seq_len={batch.seq_len} is greater than "
                f"model.max_positions={self.model.max_positions}; lower the first or raise the "
                "second"
            )
