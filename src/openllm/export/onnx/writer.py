# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Export to ONNX with the key-value cache as inputs and outputs, for plain onnxruntime.

The names are those of the field: `input_ids`, `attention_mask`, `position_ids`,
`past_key_values.N.key` and `.value` in; `logits`, `present.N.key` and `.value` out. Batch, length
and past have any size; the past may be empty. The residual stream after layer N is the value
`layers.N.out`: not an output, but there to look at.
"""

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from openllm.checkpoint.model_dir import load_model
from openllm.checkpoint.source import read_quantized
from openllm.core.errors import CheckpointError
from openllm.core.log import say
from openllm.core.plugins import require
from openllm.export.companions import copy_companions
from openllm.export.decoder import Decoder
from openllm.export.onnx.packing import BlockLinear, BlockTable, HalfLinear, HalfTable, pack
from openllm.nn.model import Transformer
from openllm.nn.quantized import QuantizedTensor

Dtype = Literal["fp32", "fp16", "int8", "int4"]

GRAPH = "model.onnx"

ONE_FILE = 1_900_000_000
"""Bytes of weights that fit into the graph's file, which protobuf limits to 2 GB."""


def export_onnx(
    source: Path, target: Path, *, dtype: Dtype = "fp32", round_inputs: bool = True
) -> None:
    """Write `model.onnx`, the tokenizer and the configs.

    Weights: `fp16` halves all matrices; `int8` and `int4` store them in blocks of integers, in
    `int4` all but embedding and head, which keep 8 bits. Norms, attention, cache and logits are
    float32 in all of them.

    Args:
        source: a model folder.
        target: an empty folder.
        dtype: of the weights.
        round_inputs: with `int8` and `int4`, products may round their inputs to 8 bits, too: about
            twice as fast, but only some processors do it, so results differ between machines.

    Raises:
        CheckpointError: the model is missing or damaged.
        MissingExtra: onnx or onnxscript is not installed.
    """
    require("onnxscript")
    model = load_model(source)
    stored = dict(read_quantized(source)) if dtype in ("int8", "int4") else {}
    matrices = {name: item for name, item in stored.items() if isinstance(item, QuantizedTensor)}
    pack_for(model, dtype, round_inputs=round_inputs, matrices=matrices)
    decoder = Decoder(model, show_layers=True)
    say(f"tracing {len(model.layers)} layers for ONNX ({dtype}); a few seconds for each")
    program = _trace(decoder)
    _finish(program.model, len(model.layers))
    weights = sum(value.const_value.nbytes for value in program.model.graph.initializers.values())
    program.save(target / GRAPH, external_data=weights > ONE_FILE)
    copy_companions(source, target)


def pack_for(
    model: Transformer,
    dtype: Dtype,
    *,
    round_inputs: bool = True,
    matrices: Mapping[str, QuantizedTensor] | None = None,
) -> None:
    """Bring the matrices of a model into the form of a dtype, in place.

    Args:
        model: becomes that form.
        dtype: of the weights.
        round_inputs: as in `export_onnx`.
        matrices: what weights were read from, if they are quantised; they keep their integers.
    """
    stored = {id(model.get_parameter(name)): item for name, item in (matrices or {}).items()}

    def blocks(kind: type[BlockLinear], bits: int) -> Any:
        return lambda weight, bias: kind(
            weight, bias, bits, round_inputs=round_inputs, stored=stored.get(id(weight))
        )

    match dtype:
        case "fp32":
            pass
        case "fp16":
            pack(model, HalfLinear, HalfTable)
        case "int8":
            pack(model, blocks(BlockLinear, 8), blocks(BlockTable, 8))
        case "int4":
            pack(model, blocks(BlockLinear, 4), blocks(BlockTable, 8))


def _trace(decoder: Decoder) -> Any:
    numbers = range(len(decoder.model.layers))
    pairs = [f"{number}.{part}" for number in numbers for part in ("key", "value")]
    past = [f"past_key_values.{pair}" for pair in pairs]
    present = [f"present.{pair}" for pair in pairs]
    with _quiet():
        return torch.onnx.export(
            decoder.eval(),
            decoder.example(),
            dynamic_shapes=decoder.dynamic_shapes(),
            input_names=["input_ids", "attention_mask", "position_ids", *past],
            output_names=["logits", *present, *(_layer(number) for number in numbers)],
            dynamo=True,
            verbose=False,
        )


def _layer(number: int) -> str:
    return f"layers.{number}.out"


def _finish(model: Any, layers: int) -> None:
    """Keep the layers' values without making them outputs; give the axes their names."""
    graph = model.graph
    del graph.outputs[-layers:]
    model.producer_name = "openllm"
    axes = {"past_key_values": {0: "batch", 2: "past"}, "present": {0: "batch", 2: "total"}}
    rows = {0: "batch", 1: "length"}
    for value in (*graph.inputs, *graph.outputs):
        named = axes.get(value.name.partition(".")[0], rows)
        if value.name == "attention_mask":
            named = {0: "batch", 1: "total"}
        for axis, name in named.items():
            value.shape[axis] = name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's notices: of libraries that this export does not use, and to its authors."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def with_layer_outputs(graph: str | bytes) -> tuple[bytes, list[str]]:
    """A graph (or its file) with the layers' values as outputs; their names, first layer first.

    Weights that lie beside the file stay there.

    Raises:
        CheckpointError: the graph does not have them: it was not exported by OpenLLM.
    """
    onnx = require("onnx")
    if isinstance(graph, bytes):
        model = onnx.load_from_string(graph)
    else:
        model = onnx.load(graph, load_external_data=False)
    made = {name for node in model.graph.node for name in node.output}
    names = sorted(
        (name for name in made if re.fullmatch(r"layers\.\d+\.out", name)),
        key=lambda name: int(name.split(".")[1]),
    )
    if not names:
        raise CheckpointError("the graph does not name its layers; export the model again")
    for name in names:
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
    return model.SerializeToString(), names
