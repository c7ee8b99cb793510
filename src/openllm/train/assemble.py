# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Build a trainer from resolved settings: model, transforms, optimizers, loop."""

from collections.abc import Callable
from functools import partial

from openllm.core.log import warn
from openllm.data.loader import Batch
from openllm.nn.model import build_model
from openllm.train.config import PretrainConfig
from openllm.train.loop import Trainer
from openllm.train.objective import Objective
from openllm.transform.compile import compile_blocks
from openllm.transform.memory import checkpoint_activations
from openllm.transform.quantize_aware import Rounding


def assemble(
    cfg: PretrainConfig,
    objective: Objective,
    batches: Callable[[int], list[Batch]],
    total_steps: int,
) -> Trainer:
    """Build a trainer without hooks.

    Args:
        cfg: a resolved recipe.
        objective: the loss to minimise.
        batches: step -> its micro-batches.
        total_steps: length of the run.
    """
    model = build_model(cfg.model, seed=cfg.seed).to(cfg.device)
    if cfg.activation_checkpointing:
        checkpoint_activations(model)
    if cfg.compile is True:
        compile_blocks(model)
    rounding = None
    if cfg.quantize is not None:
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        rounding = Rounding(shapes, bits=cfg.quantize.bits, group=cfg.quantize.group)
        if rounding.left:
            warn(
                f"quantize: {len(rounding.left)} parts are not rounded, for their rows are not "
                f"multiples of 32 long; the first is {rounding.left[0]}"
            )
    return Trainer(
        model,
        objective,
        cfg.optim.build(model),
        batches,
        total_steps=total_steps,
        lr_factor=partial(cfg.schedule.factor, steps=total_steps),
        precision="bf16" if cfg.precision == "bf16" else "fp32",
        clip_norm=cfg.clip_norm,
        ema_decay=cfg.ema,
        rounding=rounding,
        round_from=int((cfg.quantize.start if cfg.quantize else 0) * total_steps),
        seed=cfg.seed,
    )
