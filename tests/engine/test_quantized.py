# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The engine on quantised folders, those that others have made included."""

from pathlib import Path

import pytest
import torch
from tests.tiny import SHAPES, random_model
from torch.nn import functional as F

from openllm.checkpoint.model_dir import load_model, write_model
from openllm.checkpoint.quantized_copy import copy_quantized
from openllm.checkpoint.source import open_source
from openllm.engine.config import EngineConfig
from openllm.engine.llm import LLM
from openllm.nn.heads import logits
from openllm.nn.kernels.library import available
from openllm.nn.quantized import Scheme
from openllm.transform.quantize import quantize, units

IDS = torch.randint(4, 640, (60,), generator=torch.Generator().manual_seed(0))


def written(tmp_path: Path, tokenizer: Path, scheme: Scheme) -> Path:
    cfg = SHAPES["llama"]
    state = random_model(cfg).state_dict()
    write_model(tmp_path / "model", cfg, state, tokenizer=tokenizer, lineage={}, card="")
    folder = tmp_path / "quantized"
    folder.mkdir()
    names = [name for found in units(state).values() for name in found]
    copy_quantized(
        open_source(tmp_path / "model"), folder, {n: quantize(state[n], scheme) for n in names}
    )
    return folder


def distance(llm: LLM, folder: Path) -> float:
    """Largest difference of a log-probability from those of the weights in the folder."""
    model = load_model(folder)
    with torch.no_grad():
        scores = F.log_softmax(logits(model(IDS[None]).x, model.head)[0], -1)
    wanted = scores[:-1].gather(1, IDS[1:, None])[:, 0]
    found = torch.tensor([token.logprob for token in llm.score([IDS.tolist()])[0]])
    return float((found - wanted).abs().max())


@pytest.mark.parametrize("group", [8, 16, None])
@pytest.mark.parametrize("bits", [8, 4])
def test_any_group_is_run(
    bits: int, group: int | None, tmp_path: Path, tokenizer_folder: Path
) -> None:
    """The kernels have groups of 32, 64 and 128, and whole rows."""
    folder = written(tmp_path, tokenizer_folder, Scheme(bits, group))
    llm = LLM.load(folder)
    assert not available() or llm.info.precision == f"int{bits}"
    assert distance(llm, folder) < 0.05


def test_plain_torch_runs_the_weights_that_the_integers_stand_for(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    """As without a compiler."""
    folder = written(tmp_path, tokenizer_folder, Scheme(4, 16))
    llm = LLM.load(folder, EngineConfig(kernels=False))
    assert llm.info.precision in ("bf16", "fp32")
    assert distance(llm, folder) < 0.05
