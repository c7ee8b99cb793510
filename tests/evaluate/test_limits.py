# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

from dataclasses import replace
from typing import Any

import pytest

from openllm.evaluate.limits import decoding_limit, machine_limits, training_limit
from openllm.evaluate.speed import Decoding, Machine, Training

GOOD = Machine(
    device="cpu",
    cores=4,
    threads=4,
    fp32_flops=2e11,
    bf16_flops=5e11,
    memory_bytes_per_second=2e10,
    kernels=True,
    kernels_mend=None,
    busy_elsewhere=0.05,
)


def training(model: float, optimizer: float) -> Training:
    """Steps of 100 tokens a second that take these shares of the peak."""
    return Training(100.0, 100, round(model * 1e6), round(optimizer * 1e6), 1e6)


@pytest.mark.parametrize(
    ("model", "optimizer", "said"),
    [
        (0.78, 0.0, "training `x` is limited by matrix products: 78% of their peak"),
        (
            0.55,
            0.2,
            "training `x` is limited by matrix products: 75% of their peak (55% for the model, "
            "20% for the optimizer)",
        ),
        (
            0.41,
            0.01,
            "training `x` is limited by the work between the matrix products (memory, many "
            "small operations): the products reach 42% of their peak",
        ),
    ],
)
def test_what_limits_training(model: float, optimizer: float, said: str) -> None:
    assert training_limit("x", training(model, optimizer)) == said


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.12, "work between the matrix products: it reaches 12% of the memory bandwidth"),
        (0.85, "limited by reading the weights from memory: 85% of the memory bandwidth"),
        (1.4, "weights stay in the processor's cache (140% of the memory bandwidth)"),
    ],
)
def test_what_limits_decoding(share: float, said: str) -> None:
    decoding = Decoding(
        tokens_per_second=100 * share,
        precision="bf16",
        bytes_per_token=100,
        memory_bytes_per_second=1e4,
    )
    assert decoding.share_of_limit == pytest.approx(share)
    assert said in decoding_limit("x", decoding)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        (
            {"busy_elsewhere": 0.94},
            ["other programs kept 0.9 of 4 cores busy: close them and repeat"],
        ),
        ({"threads": 2}, []),  # two threads per core
        ({"threads": 1}, ["1 threads leave some of the 4 cores idle"]),
        (
            {"kernels": False, "kernels_mend": "install g++"},
            [
                "the CPU kernels are off, so training runs on plain PyTorch, which is slower: "
                "install g++"
            ],
        ),
        (
            {"bf16_flops": None},
            ["this processor has no bf16 instructions, so training runs in fp32"],
        ),
        (
            {"bf16_flops": 1e11},
            ["bf16 products are slower than fp32 ones here: train with the setting precision=fp32"],
        ),
        ({"device": "cuda", "kernels": False, "threads": 1, "bf16_flops": None}, []),
    ],
)
def test_what_slows_down_everything(changes: dict[str, Any], said: list[str]) -> None:
    assert machine_limits(replace(GOOD, **changes)) == said
