# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The benchmark of exports: its distances are zero for the model itself, and else not."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import REPOSITORY

from openllm.export.eager import EagerModel


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a script of benchmarks/ were running."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))


def copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def test_a_copy_of_the_model_agrees_with_it(
    model_folder: Callable[[str], Path], prepared: Path
) -> None:
    from exports import Format, measure, texts, wanted_of

    source = model_folder("qwen3")
    held_out = texts(source, prepared, 6, 40)
    assert len(held_out) == 6 and max(map(len, held_out)) <= 40
    wanted = wanted_of(source, held_out, 10)
    found = measure(Format("copy", copy, EagerModel.load), source, wanted)
    assert found["max_logit_difference"] == 0
    assert found["mean_kl_nats"] == 0
    assert found["perplexity_over_eager"] == 1
    assert found["scored_tokens"] == sum(map(len, held_out)) - 6
    assert found["batch_4"]["identical"] == found["batch_4"]["of"] == 6
    weights = (source / "model.safetensors").stat().st_size
    assert found["megabytes"] == weights / 1e6


def test_another_model_does_not(model_folder: Callable[[str], Path], prepared: Path) -> None:
    from exports import Format, measure, texts, wanted_of

    class Louder(EagerModel):
        def logits(self, ids: Sequence[int]) -> np.ndarray:
            return 2 * super().logits(ids)

        def greedy(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
            return [[*text[:-1], -1] for text in super().greedy(prompts, new_tokens)]

    source = model_folder("qwen3")
    wanted = wanted_of(source, texts(source, prepared, 4, 40), 10)
    found = measure(Format("louder", copy, Louder.load), source, wanted)
    assert found["max_logit_difference"] > 1
    assert found["mean_kl_nats"] > 0.01
    assert found["perplexity_over_eager"] > 1.01
    assert found["batch_1"]["identical"] == 0
    assert found["batch_1"]["mean_common_tokens"] == 9
