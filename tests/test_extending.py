# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The changes that docs/extending.md shows touch one file each, and work."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import REPOSITORY
from tests.tiny import settings

READER, OPTIMIZER, NORM = re.findall(
    r"```diff\n(.*?)```", (REPOSITORY / "docs" / "extending.md").read_text(), re.DOTALL
)

SUBTITLES = """1
00:00:01,000 --> 00:00:04,000
The old lighthouse stood on a rock far out in the bay, and nobody had lit it for many years.

2
00:00:05,000 --> 00:00:09,000
One evening a girl rowed out to it with a box of matches and a can of oil under her arm.
"""

USE_READER = """
import sys
from openllm.recipes.prepare import prepare_main
prepare_main([sys.argv[1], "--out", sys.argv[2]])
"""

USE_OPTIMIZER = """
from openllm.nn.model import build_model
from openllm.recipes.build import load_config, resolve
cfg = resolve(load_config("tiny", ["optim={kind: sgd, lr: 0.05}"]), 640)
model = build_model(cfg.model)
(optimizer,) = cfg.optim.build(model)
model.embed_tokens.weight.sum().backward()
before = model.embed_tokens.weight.detach().clone()
optimizer.step()
moved = (before - model.embed_tokens.weight).detach()
assert abs(moved.mean().item() - 0.05 * 1.9) < 1e-4, moved
"""

USE_NORM = """
import torch
from openllm.nn.cost import parameters
from openllm.nn.model import build_model
from openllm.recipes.build import load_config, resolve
cfg = resolve(load_config("tiny", ["model.norm={kind: plain}"]), 640).model
model = build_model(cfg)
assert all(parameter.ndim == 2 for parameter in model.parameters())
assert parameters(cfg).total == sum(parameter.numel() for parameter in model.parameters())
assert torch.isfinite(model(torch.zeros(1, 8, dtype=torch.long)).x).all()

import sys
from openllm.checkpoint.model_dir import read_model_config
from openllm.engine.llm import LLM
from openllm.engine.request import SamplingParams
from openllm.recipes.pretrain import main
main(["tiny", "model.norm={kind: plain}", *sys.argv[1:], "--out", "run"])
llm = LLM.load("run/model")
assert read_model_config("run/model").norm.kind == "plain"
assert len(llm.generate(["Anna"], SamplingParams(max_new_tokens=4))) == 1
assert "only OpenLLM can load" in open("run/model/README.md").read()
"""


def run_changed(patch: str, folder: Path, program: str, *words: str) -> str:
    """Run a program with a copy of the package that has the change; returns its messages."""
    assert patch.count("\n+++ ") + patch.startswith("+++ ") == 1, "the change touches one file"
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "src" / "openllm", folder / "src" / "openllm", ignore=skipped)
    source = folder / "src"
    apply = ["git", "apply", "-p1", "-"]
    subprocess.run(apply, cwd=source, input=patch, text=True, check=True)
    environment = {**os.environ, "PYTHONPATH": str(source)}
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.integration
def test_a_change_in_one_file_adds_an_optimizer(tmp_path: Path) -> None:
    run_changed(OPTIMIZER, tmp_path, USE_OPTIMIZER)


@pytest.mark.integration
def test_a_change_in_one_file_adds_a_norm_that_can_be_trained(
    tmp_path: Path, prepared: Path, tokenizer_folder: Path
) -> None:
    recipe = settings(prepared, tokenizer_folder, duration="2 steps")
    said = run_changed(NORM, tmp_path, USE_NORM, *recipe)
    assert "only OpenLLM will be able to load its folder" in said


@pytest.mark.integration
def test_a_change_in_one_file_adds_a_reader(tmp_path: Path) -> None:
    film, out = tmp_path / "film.srt", tmp_path / "data"
    film.write_text(SUBTITLES)
    run_changed(READER, tmp_path, USE_READER, str(film), str(out))
    text = (out / "train.jsonl").read_text()
    assert "lighthouse" in text and "-->" not in text
