# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Model folders to export, and an empty zoo for a test."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.export.shapes import FAMILIES
from tests.tiny import SHAPES, random_model

from openllm.checkpoint.model_dir import write_model


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A model folder as training writes it."""
    folder = tmp_path_factory.mktemp("export") / "model"
    cfg = SHAPES["qwen3"]
    source = {"name": "tiny", "licence": "CC0-1.0"}
    lineage = {
        "made_by": "pretrain",
        "commit": "abc123",
        "parents": [],
        "recipe": {"model": {"dim": 48}, "seed": 0, "distill": None},
        "data": {"name": "stories", "fingerprint": "f" * 64, "sources": [source]},
    }
    weights = random_model(cfg).state_dict()
    card = "---\nlicense: mit\n---\n# Little stories\n"
    write_model(folder, cfg, weights, tokenizer=tokenizer_folder, lineage=lineage, card=card)
    return folder


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A copy of the model folder, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "run" / "model"))


@pytest.fixture
def zoo_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty zoo, and an empty cache."""
    monkeypatch.setenv("OPENLLM_MODELS", str(tmp_path / "zoo"))
    monkeypatch.setenv("OPENLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "zoo"


@pytest.fixture(scope="session")
def model_folder(
    tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path
) -> Callable[[str], Path]:
    """Writes a random model of a family; its greedy texts are not one token again and again."""

    def write(name: str) -> Path:
        cfg = FAMILIES[name]
        folder = tmp_path_factory.mktemp("source") / name
        state = random_model(cfg, 1, spread=0.1 if "gemma" in name else 0.2).state_dict()
        write_model(folder, cfg, state, tokenizer=tokenizer_folder, lineage={}, card="")
        return folder

    return write
