# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""What limits the speed of a machine, in words, from what was measured; loads no torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openllm.evaluate.speed import Decoding, Machine, Training

MOST = 0.6
"""Share of a limit, or of the time, from which on it is what limits."""

CACHED = 1.1
"""Share of the memory's limit above which the weights cannot have come from memory."""

BUSY = 0.2
"""Cores busy elsewhere that are worth a word."""

NOTICED = 0.05
"""Share of the peak from which on the optimizer is named."""


def training_limit(name: str, training: "Training") -> str:
    """What holds the training of a preset back."""
    model, optimizer = training.share_of_peak, training.optimizer_share_of_peak
    what = f"{model + optimizer:.0%} of their peak"
    if optimizer >= NOTICED:
        what += f" ({model:.0%} for the model, {optimizer:.0%} for the optimizer)"
    if model + optimizer >= MOST:
        return f"training `{name}` is limited by matrix products: {what}"
    return (
        f"training `{name}` is limited by what lies between the matrix products (memory, many "
        f"small operations): they reach {what}"
    )


def decoding_limit(name: str, decoding: "Decoding") -> str:
    """What holds the generation of text by a preset back."""
    share = decoding.share_of_limit
    what = f"{share:.0%} of the memory bandwidth"
    if share > CACHED:
        return (
            f"decoding `{name}` is not limited by memory: its weights stay in the processor's "
            f"cache ({what})"
        )
    if share >= MOST:
        return f"decoding `{name}` is limited by reading the weights from memory: {what}"
    products = decoding.share_of_products
    if products >= MOST:
        return (
            f"decoding `{name}` is limited by matrix products of a single row, which reach {what}"
        )
    return (
        f"decoding `{name}` is limited by overhead per operation: matrix products take "
        f"{products:.0%} of the time ({what})"
    )


def machine_limits(machine: "Machine") -> list[str]:
    """What slows down everything, each with what mends it."""
    said = []
    if machine.busy_elsewhere >= BUSY:
        said.append(
            f"other programs kept {machine.busy_elsewhere:.1f} of {machine.cores} cores busy: "
            "close them and repeat"
        )
    if machine.device != "cpu":
        return said
    if 2 * machine.threads < machine.cores:  # two may be one with hyper-threading
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
