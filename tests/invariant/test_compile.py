# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A compiled model is the same function, whatever the document boundaries."""

import shutil

import pytest
import torch
from tests.tiny import SHAPES
from tests.tolerances import assert_close, assert_gradients_close

from openllm.nn.context import AttentionContext
from openllm.nn.model import Transformer, build_model
from openllm.transform.compile import compile_blocks


def gradients(model: Transformer, borders: tuple[int, ...]) -> dict[str, torch.Tensor]:
    tokens = torch.arange(64).reshape(2, 32) % model.cfg.vocab_size
    model.zero_grad()
    x = model(tokens, attn=AttentionContext(borders)).x
    x.float().square().mean().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"states": x.detach(), **found}


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler here")
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_compiled_equals_eager(half: bool) -> None:
    plain = build_model(SHAPES["qwen3"])
    compiled = compile_blocks(build_model(SHAPES["qwen3"]))
    dtype = torch.bfloat16 if half else torch.float32
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        for borders in ((0, 32, 64), (0, 5, 32, 40, 64), (0, 32, 33, 34, 50, 64)):
            expected, found = gradients(plain, borders), gradients(compiled, borders)
            assert_close(found.pop("states"), expected.pop("states"), dtype)
            assert_gradients_close(found, expected, dtype)
