# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Our GGUF files in llama.cpp: the same logits, text and tokens."""

from pathlib import Path

import pytest
from tests.export.shapes import GGUF_SHAPES
from tests.export.test_gguf import difference, exported, our_logits, tokens
from tests.tiny import random_model

from openllm.export.llama_cpp import LlamaCppModel

pytest.importorskip("llama_cpp", reason="needs the extra 'llama', which is built from source")

TABLE = 3e-3
"""llama.cpp looks GELU up in a table of float16."""


@pytest.mark.parametrize("case", GGUF_SHAPES)
def test_logits_are_the_same(case: str, tmp_path: Path, tokenizer_folder: Path) -> None:
    _, cfg = GGUF_SHAPES[case]
    model = random_model(cfg).eval()
    path = exported(tmp_path, model, tokenizer_folder, "f32")
    runtime = LlamaCppModel(path, threads=1)
    ids = tokens(min(runtime.context, 100))
    most = TABLE if "gelu" in cfg.mlp.kind or cfg.mlp.kind == "geglu" else 1e-5
    assert difference(runtime.logits(ids), our_logits(model, ids)) < most
    runtime.close()
