# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""ONNX files give what the model gives, in plain onnxruntime."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.export.eager import eager_greedy, eager_logits
from tests.tiny import VOCAB_SIZE
from tests.tolerances import assert_close, difference

from openllm.checkpoint.model_dir import load_model
from openllm.core.errors import CheckpointError, ConfigError
from openllm.export.onnx import writer as exporter
from openllm.export.onnx.packing import BLOCK, from_blocks, to_blocks
from openllm.export.onnx.runtime import OnnxModel
from openllm.export.onnx.writer import export_onnx

pytestmark = pytest.mark.integration

PROMPTS = [[5, 9, 300, 17], [8], [21, 22, 23, 24, 25, 26, 27, 28, 29], [600, 601]]


def ids(count: int) -> list[int]:
    return np.random.default_rng(4).integers(4, VOCAB_SIZE, count).tolist()


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Callable[[str], Path]
) -> tuple[Path, Path]:
    """Model folder and its export, of a shape with grouped heads and a tied head."""
    source, target = model_folder("qwen3"), tmp_path_factory.mktemp("onnx")
    export_onnx(source, target)
    return source, target


@pytest.fixture(scope="module")
def runtime(exported: tuple[Path, Path]) -> OnnxModel:
    return OnnxModel(exported[1], threads=1)


def test_logits_and_residual_streams(exported: tuple[Path, Path], runtime: OnnxModel) -> None:
    model, text = load_model(exported[0]), ids(40)
    assert_close(torch.from_numpy(runtime.logits(text)), eager_logits(model, text))
    streams: list[torch.Tensor] = []
    for layer in model.layers:
        layer.register_forward_hook(lambda *call: streams.append(call[2][0]))
    model(torch.tensor([text]))
    found = runtime.layers(text)
    assert len(found) == len(streams) == 2
    for stream, wanted in zip(found, streams, strict=True):
        assert_close(torch.from_numpy(stream), wanted)


def test_greedy_text_of_padded_batches(exported: tuple[Path, Path], runtime: OnnxModel) -> None:
    model = load_model(exported[0])
    wanted = [eager_greedy(model, prompt, 60) for prompt in PROMPTS]
    assert len({token for text in wanted for token in text}) > 20  # it says something
    assert runtime.greedy(PROMPTS, 60) == wanted
    assert [runtime.greedy([prompt], 60)[0] for prompt in PROMPTS] == wanted


def test_generation_ends_at_a_stop_token(runtime: OnnxModel) -> None:
    long = runtime.greedy(PROMPTS, 30)
    stop = {long[0][7], long[2][3]}
    short = runtime.generate(PROMPTS, 30, stop=stop)
    for whole, cut in zip(long, short, strict=True):
        ends = [at for at, token in enumerate(whole) if token in stop]
        assert cut == whole[: ends[0] if ends else 30]


def test_names_and_axes_are_those_of_the_field(exported: tuple[Path, Path]) -> None:
    graph = onnx.load(exported[1] / "model.onnx").graph
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    pairs = [f"{layer}.{part}" for layer in (0, 1) for part in ("key", "value")]
    rows, total = ["batch", "length"], ["batch", "total"]
    assert axes == {
        "input_ids": rows,
        "attention_mask": total,
        "position_ids": rows,
        **{f"past_key_values.{pair}": ["batch", 2, "past", 16] for pair in pairs},
        "logits": [*rows, VOCAB_SIZE],
        **{f"present.{pair}": ["batch", 2, "total", 16] for pair in pairs},
    }
    onnx.checker.check_model(exported[1] / "model.onnx", full_check=True)


def test_what_lies_beside_the_graph(exported: tuple[Path, Path]) -> None:
    source, target = exported
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer.model"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
    weights = (source / "model.safetensors").stat().st_size
    assert (target / "model.onnx").stat().st_size < weights + 200_000  # the tied head is there once


def test_a_text_longer_than_the_context_is_refused(runtime: OnnxModel) -> None:
    with pytest.raises(ConfigError, match="130 tokens, but the context has 128"):
        runtime.greedy([[5, 6]], 128)
    with pytest.raises(ConfigError, match="no tokens"):
        runtime.greedy([[5], []], 3)


def test_a_damaged_graph_is_refused(exported: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="export the model again"):
        OnnxModel(tmp_path)
    whole = (exported[1] / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "config.json").write_bytes((exported[1] / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="damaged"):
        OnnxModel(tmp_path)


def test_large_weights_lie_beside_the_graph(
    model_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here with all that Gemma 2 has: windows, soft caps, four norms, a scaled embedding."""
    monkeypatch.setattr(exporter, "ONE_FILE", 100_000)
    source = model_folder("gemma2")
    export_onnx(source, tmp_path)
    assert (tmp_path / "model.onnx.data").stat().st_size > 100_000
    assert (tmp_path / "model.onnx").stat().st_size < 400_000
    model, runtime = load_model(source), OnnxModel(tmp_path, threads=1)
    text = ids(20)
    assert_close(torch.from_numpy(runtime.logits(text)), eager_logits(model, text))
    assert len(runtime.layers(text)) == model.cfg.num_layers
    assert runtime.greedy(PROMPTS, 20) == [eager_greedy(model, p, 20) for p in PROMPTS]


def test_four_bits(model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    """Products with the packed weights are those with the weights that they stand for."""
    source = model_folder("gpt2")
    export_onnx(source, tmp_path, dtype="int4")
    state = load_model(source).state_dict()
    blocks = {
        name: value.shape[0] * -(-value.shape[1] // BLOCK)
        for name, value in state.items()
        if value.ndim == 2
    }
    stored = sum(
        count * (BLOCK if "embed" in name else BLOCK // 2) + count * 4
        for name, count in blocks.items()
    )
    graph = onnx.load(tmp_path / "model.onnx").graph
    weights = sum(len(part.raw_data) for part in graph.initializer)
    assert stored < weights < stored + 20_000
    kinds = {node.op_type for node in graph.node}
    assert {"MatMulNBits", "GatherBlockQuantized"} <= kinds
    assert not kinds & {"Gemm", "Gather"}
    model, text = load_model(source), ids(30)
    for name, value in model.state_dict().items():
        if value.ndim == 2:
            bits = 8 if "embed" in name else 4
            value.copy_(from_blocks(*to_blocks(value, bits), bits, value.shape[1]))
    found = torch.from_numpy(OnnxModel(tmp_path, threads=1).logits(text))
    assert difference(found, eager_logits(model, text)) < 0.03  # activations have 8 bits too
