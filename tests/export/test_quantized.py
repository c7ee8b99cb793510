# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Exports of quantised folders: formats that have the same integers keep them."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from tests.export.eager import eager_logits
from tests.export.gguf.models import changed
from tests.tiny import random_model
from tests.tolerances import assert_close, difference

from openllm.checkpoint.model_dir import load_model, write_model
from openllm.checkpoint.source import read_quantized
from openllm.export.gguf.tensors import packed
from openllm.export.hf.writer import export_hf
from openllm.export.inventory import list_files, model_facts
from openllm.nn.config import ModelConfig
from openllm.nn.quantized import QuantizedTensor, Scheme
from openllm.transform.quantize import fitting, quantize, units

SHAPES = {
    "qwen3": changed("qwen3", dim=64),
    "llama": changed("llama", dim=64, mlp__hidden_dim=128),  # whose heads are interleaved
    "gpt2": changed("gpt2"),  # which stacks matrices
}
IDS = torch.randint(4, 640, (40,), generator=torch.Generator().manual_seed(1)).tolist()


def written(
    folder: Path, tokenizer: Path, cfg: ModelConfig, bits: Mapping[str, int], group: int = 32
) -> Path:
    """A quantised folder: kind of unit -> bits."""
    state = random_model(cfg).state_dict()
    matrices = {}
    for unit, names in units(state).items():
        for name in names:
            wanted = Scheme(bits[unit.rpartition(".")[2]], group)
            scheme = fitting(wanted, state[name].shape[1])
            assert scheme is not None
            matrices[name] = quantize(state[name], scheme)
    write_model(folder, cfg, state, tokenizer=tokenizer, lineage={}, card="", matrices=matrices)
    return folder


EIGHT = dict.fromkeys(("qkv", "out", "up", "down", "embed", "head"), 8)
MIXED = {**EIGHT, "out": 4, "up": 4, "down": 4}


@pytest.mark.integration
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize(("bits", "dtype"), [(EIGHT, "q8_0"), (MIXED, "q4_0"), (MIXED, "q8_0")])
def test_gguf_keeps_the_integers(
    name: str,
    group: int,
    bits: dict[str, int],
    dtype: str,
    tmp_path: Path,
    tokenizer_folder: Path,
) -> None:
    pytest.importorskip("gguf", reason="needs the extra 'export'")
    from openllm.export.gguf.file import GGUFFile
    from openllm.export.gguf.writer import export_gguf

    cfg = SHAPES[name]
    folder = written(tmp_path / "model", tokenizer_folder, cfg, bits, group)
    (tmp_path / "out").mkdir()
    export_gguf(folder, tmp_path / "out", dtype=dtype)  # type: ignore[arg-type]
    (path,) = (tmp_path / "out").glob("*.gguf")
    file, state = GGUFFile(path), load_model(folder).state_dict()
    kinds = set()
    for entry in packed(cfg, name):
        wanted = entry.pack(state.__getitem__)
        assert torch.equal(torch.from_numpy(file.read(entry.name)), wanted), entry.name
        kinds.add(file.tensors[entry.name].dtype)
    assert kinds == {"f32", "q8_0"} | ({"q4_0"} if dtype == "q4_0" else set())


@pytest.mark.integration
@pytest.mark.parametrize(("bits", "dtype"), [(EIGHT, "int8"), (MIXED, "int4")])
def test_onnx_keeps_the_integers(
    bits: dict[str, int], dtype: str, tmp_path: Path, tokenizer_folder: Path
) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra 'export'")
    from openllm.export.onnx.runtime import OnnxModel
    from openllm.export.onnx.writer import export_onnx

    folder = written(tmp_path / "model", tokenizer_folder, SHAPES["qwen3"], bits)
    (tmp_path / "out").mkdir()
    export_onnx(folder, tmp_path / "out", dtype=dtype, round_inputs=False)  # type: ignore[arg-type]
    found = torch.from_numpy(OnnxModel(tmp_path / "out", threads=1).logits(IDS))
    assert_close(found, eager_logits(load_model(folder), IDS))


def test_hf_writes_the_weights_that_the_integers_stand_for(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    folder = written(tmp_path / "model", tokenizer_folder, SHAPES["llama"], MIXED)
    (tmp_path / "out").mkdir()
    export_hf(folder, tmp_path / "out")
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    found, wanted = load_model(tmp_path / "out"), load_model(folder)
    assert difference(eager_logits(found, IDS), eager_logits(wanted, IDS)) == 0


def test_what_a_quantised_folder_says_of_itself(tmp_path: Path, tokenizer_folder: Path) -> None:
    folder = written(tmp_path / "model", tokenizer_folder, SHAPES["llama"], MIXED)
    facts = model_facts(list_files(folder))
    state = random_model(SHAPES["llama"]).state_dict()
    assert facts.parameters == sum(tensor.numel() for tensor in state.values())
    counts: dict[int, int] = {}
    for _, item in read_quantized(folder):
        if isinstance(item, QuantizedTensor):
            counts[item.bits] = counts.get(item.bits, 0) + item.q.numel()
    assert facts.dtype == f"int{max(counts, key=lambda bits: counts[bits])}"
