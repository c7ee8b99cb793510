# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Model folders to export."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.export.shapes import FAMILIES
from tests.tiny import random_model

from openllm.checkpoint.model_dir import write_model


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
