# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Describe what limits the speed of a machine, from measurements; loads no torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openllm.evaluate.speed import Decoding, Machine, Training

MOST = 0.6
"""Fraction of a limit, or of the time, from which it counts as the bottleneck."""

CACHED = 1.1
"""Fraction of the memory limit above which weights cannot have come from memory."""

BUSY = 0.2
"""Cores busy elsewhere that are worth mentioning."""

NOTICED = 0.05
"""Fraction of the peak from which the optimizer is named."""


def training_limit(name: str, training: "Training") -> str:
    """What limits the training of a preset."""
    model, optimizer = training.share_of_peak, training.optimizer_share_of_peak
    what = f"{model + optimizer:.0%} of their peak"
    if optimizer >= NOTICED:
        what += f" ({model:.0%} for the model, {optimizer:.0%} for the optimizer)"
    if model + optimizer >= MOST:
        return f"training `{name}` is limited by matrix products: {what}"
    return (
        f"training `{name}` is limited by the work between the matrix products (memory, many "
        f"small operations): the products reach {what}"
    )


def decoding_limit(name: str, decoding: "Decoding") -> str:
    """What limits text generation by a preset."""
    share = decoding.share_of_limit
    what = f"{share:.0%} of the memory bandwidth"
    if share > CACHED:
        return (
            f"decoding `{name}` is not limited by memory: its weights stay in the processor's "
            f"cache ({what})"
        )
    if share >= MOST:
        return f"decoding `{name}` is limited by reading the weights from memory: {what}"
    return (
        f"decoding `{name}` is limited by the work between the matrix products: it reaches {what}"
    )


def machine_limits(machine: "Machine") -> list[str]:
    """What slows everything down, each with its remedy."""
    said = []
    if machine.busy_elsewhere >= BUSY:
        said.append(
            f"other programs kept {machine.busy_elsewhere:.1f} of {machine.cores} cores busy: "
            "close them and repeat"
        )
    if machine.device != "cpu":
        return said
    if 2 * machine.threads < machine.cores:  # with hyper-threading, two may be one
        said.append(f"{machine.threads} threads leave some of the {machine.cores} cores idle")
    if not machine.kernels:
        said.append(
            "the CPU kernels are off, so training runs on plain PyTorch, which is slower: "
            f"{machine.kernels_mend}"
        )
    if machine.bf16_flops is None:
        said.append("this processor has no bf16 instructions, so training runs in fp32")
    elif machine.bf16_flops < machine.fp32_flops:
        said.append(
            "bf16 products are slower than fp32 ones here: train with the setting precision=fp32"
        )
    return said
