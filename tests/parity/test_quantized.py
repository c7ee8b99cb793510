# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Quantised folders in `transformers`, which reads them with compressed-tensors."""

import json
from pathlib import Path

import pytest
import torch
from tests.tiny import SHAPES, random_model

from openllm.checkpoint.model_dir import load_model, write_model
from openllm.checkpoint.quantized_copy import copy_quantized, portable
from openllm.checkpoint.source import open_source
from openllm.nn.heads import logits
from openllm.nn.quantized import Scheme
from openllm.transform import quantize as rounding
from openllm.transform.quantize import quantize, round_inputs, units

pytest.importorskip("compressed_tensors", reason="the peer of quantised folders")

pytestmark = pytest.mark.integration

BITS = {"qkv": 8, "out": 4, "up": 4, "down": 8, "head": 4}
IDS = torch.randint(4, 640, (2, 40), generator=torch.Generator().manual_seed(0))


def written(tmp_path: Path, tokenizer: Path, name: str, *, dynamic: bool) -> Path:
    cfg = SHAPES[name]
    state = random_model(cfg).state_dict()
    write_model(tmp_path / "model", cfg, state, tokenizer=tokenizer, lineage={}, card="")
    folder = tmp_path / "quantized"
    folder.mkdir()
    matrices = {}
    for unit, names in units(state).items():
        kind = unit.rpartition(".")[2]
        scheme = Scheme(8, None) if dynamic else Scheme(BITS.get(kind, 8), 16)
        matrices |= {key: quantize(state[key], scheme) for key in names if kind != "embed"}
    source = open_source(tmp_path / "model")
    assert portable(source, matrices)
    copy_quantized(source, folder, matrices, dynamic=dynamic)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", [name for name in SHAPES if name != "gpt2"])
def test_logits_are_those_of_transformers(
    name: str,
    dynamic: bool,
    tmp_path: Path,
    tokenizer_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With activations of 8 bits, too: where a value is near a half, the two may round apart."""
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(rounding, "INPUT_STEPS", 127.5)  # as compressed-tensors divides them

    folder = written(tmp_path, tokenizer_folder, name, dynamic=dynamic)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ours = load_model(folder)
    with torch.no_grad():
        wanted = theirs(IDS).logits
        apart = (logits(ours(IDS).x, ours.head) - wanted).abs()
        if not dynamic:
            assert float(apart.max()) <= 1e-5 * float(wanted.abs().max())
            return
        round_inputs(ours)
        rounded = (logits(ours(IDS).x, ours.head) - wanted).abs()
    assert float(rounded.mean()) < 0.6 * float(apart.mean())
    assert float(rounded.quantile(0.1)) < 0.1 * float(apart.quantile(0.1))


def test_its_own_library_packs_the_same_words(tmp_path: Path, tokenizer_folder: Path) -> None:
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    from openllm.checkpoint.quantized import pack_words

    for bits in (4, 8):
        half = 2 ** (bits - 1)
        q = torch.randint(-half, half, (7, 50)).to(torch.int8)
        assert pack_words(q, bits).equal(pack_to_int32(q, bits))


def test_its_own_library_accepts_the_config(tmp_path: Path, tokenizer_folder: Path) -> None:
    from compressed_tensors.quantization import QuantizationConfig

    for dynamic in (False, True):
        (tmp_path / str(dynamic)).mkdir()
        folder = written(tmp_path / str(dynamic), tokenizer_folder, "llama", dynamic=dynamic)
        config = json.loads((folder / "config.json").read_text())["quantization_config"]
        found = QuantizationConfig.model_validate(config)
        assert len(found.config_groups) == (1 if dynamic else 2)
