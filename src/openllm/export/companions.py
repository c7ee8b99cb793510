# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The small files of a model folder that an export keeps: architecture, tokenizer, lineage."""

import shutil
from pathlib import Path

from openllm.checkpoint.model_dir import TOKENIZER_FILES

COMPANIONS = ("config.json", "generation_config.json", "openllm.json", *TOKENIZER_FILES)


def copy_companions(source: Path, target: Path) -> None:
    """Copy those that exist."""
    for name in COMPANIONS:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
