# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.tiny import SHAPES, random_model
from torch import Tensor

from openllm.checkpoint.model_dir import load_model, write_model
from openllm.checkpoint.quantization import KEY, read_quantization
from openllm.checkpoint.quantized import pack_words, unpack_words
from openllm.checkpoint.quantized_copy import copy_quantized, portable
from openllm.checkpoint.source import open_source, read_quantized
from openllm.core.errors import CheckpointError
from openllm.nn.config import ModelConfig
from openllm.nn.quantized import QuantizedTensor, Scheme
from openllm.transform.quantize import quantize, units

STACKED = SHAPES["llama"].model_copy(
    update={"attention": SHAPES["llama"].attention.model_copy(update={"window": 9})}
)


def write(folder: Path, tokenizer: Path, cfg: ModelConfig) -> Mapping[str, Tensor]:
    state = random_model(cfg).state_dict()
    write_model(folder, cfg, state, tokenizer=tokenizer, lineage={}, card="a card")
    return state


def matrices(state: Mapping[str, Tensor], *, bits: Mapping[str, int]) -> dict[str, QuantizedTensor]:
    """Kinds of units -> bits; in groups of 16, which fit all widths of the small models."""
    return {
        name: quantize(state[name], Scheme(bits[kind], 16))
        for unit, names in units(state).items()
        for name in names
        if (kind := unit.rpartition(".")[2]) in bits
    }


MIXED = {"qkv": 8, "out": 4, "up": 4, "down": 8, "embed": 8, "head": 4}


def quantized_folder(tmp_path: Path, tokenizer: Path, cfg: ModelConfig, **options: Any) -> Path:
    state = write(tmp_path / "model", tokenizer, cfg)
    target = tmp_path / "quantized"
    target.mkdir()
    copy_quantized(open_source(tmp_path / "model"), target, matrices(state, bits=MIXED), **options)
    return target


@given(st.integers(1, 5), st.integers(1, 70), st.sampled_from([4, 8]), st.integers(0, 99))
def test_packing_is_exact(rows: int, columns: int, bits: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    half = 2 ** (bits - 1)
    q = torch.randint(-half, half, (rows, columns), generator=generator).to(torch.int8)
    words = pack_words(q, bits)
    assert words.shape == (rows, -(-columns * bits // 32))
    assert unpack_words(words, bits, columns).equal(q)


def test_words_hold_the_first_integer_in_their_lowest_bits() -> None:
    """As compressed-tensors has it, offset by half of the range."""
    assert pack_words(torch.tensor([[-8, 7, 0]], dtype=torch.int8), 4).tolist() == [[0x8F0]]
    assert pack_words(torch.tensor([[-128, 127]], dtype=torch.int8), 8).tolist() == [[0xFF00]]


@pytest.mark.integration
@pytest.mark.parametrize("name", [*SHAPES, "stacked"])
@pytest.mark.parametrize("half", [False, True])
def test_a_quantised_folder_loads_as_what_was_quantised(
    name: str, half: bool, tmp_path: Path, tokenizer_folder: Path
) -> None:
    cfg = STACKED if name == "stacked" else SHAPES[name]
    folder = quantized_folder(tmp_path, tokenizer_folder, cfg, half=half)
    original = load_model(tmp_path / "model").state_dict()
    wanted = matrices(original, bits=MIXED)
    assert len(wanted) == sum(
        tensor.ndim == 2 and "position" not in key for key, tensor in original.items()
    )
    loaded = load_model(folder).state_dict()
    found = dict(read_quantized(folder))
    assert found.keys() == loaded.keys() == original.keys()
    for key, tensor in loaded.items():
        given = found[key]
        if key in wanted:
            assert isinstance(given, QuantizedTensor)
            assert given.scheme == wanted[key].scheme
            assert given.q.equal(wanted[key].q) and given.scale.equal(wanted[key].scale)
            assert tensor.equal(wanted[key].dequantize())
        else:
            assert isinstance(given, Tensor)
            same = original[key].half().float() if half and tensor.ndim == 2 else original[key]
            assert tensor.equal(same) and given.float().equal(same)


def test_plain_bytes_for_dynamic_activations(tmp_path: Path, tokenizer_folder: Path) -> None:
    state = write(tmp_path / "model", tokenizer_folder, SHAPES["qwen3"])
    target = tmp_path / "quantized"
    target.mkdir()
    wanted = {
        name: quantize(tensor, Scheme(8, None))
        for name, tensor in state.items()
        if tensor.ndim == 2
    }
    copy_quantized(open_source(tmp_path / "model"), target, wanted, dynamic=True)
    config = json.loads((target / "config.json").read_text())[KEY]
    assert config["format"] == "int-quantized"
    quantization = read_quantization({KEY: config})
    assert quantization is not None and quantization.dynamic
    assert quantization.schemes == {Scheme(8, None)}
    stored = load_file(target / "model.safetensors")
    assert stored["model.layers.0.mlp.down_proj.weight"].dtype == torch.int8
    for key, tensor in load_model(target).state_dict().items():
        assert key not in wanted or tensor.equal(wanted[key].dequantize())


def test_nothing_quantised_is_an_ordinary_model(tmp_path: Path, tokenizer_folder: Path) -> None:
    state = write(tmp_path / "model", tokenizer_folder, SHAPES["qwen3"])
    target = tmp_path / "same"
    target.mkdir()
    copy_quantized(open_source(tmp_path / "model"), target, {}, half=True)
    assert KEY not in json.loads((target / "config.json").read_text())
    for name, tensor in load_model(target).state_dict().items():
        assert tensor.equal(state[name].half().float() if tensor.ndim == 2 else state[name])


def test_shards(tmp_path: Path, tokenizer_folder: Path) -> None:
    folder = quantized_folder(tmp_path, tokenizer_folder, SHAPES["llama"], max_shard_bytes=30_000)
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    wanted = matrices(load_model(tmp_path / "model").state_dict(), bits=MIXED)
    loaded = load_model(folder).state_dict()
    assert all(loaded[name].equal(tensor.dequantize()) for name, tensor in wanted.items())


def test_who_else_loads_it(tmp_path: Path, tokenizer_folder: Path) -> None:
    state = write(tmp_path / "llama", tokenizer_folder, SHAPES["llama"])
    source = open_source(tmp_path / "llama")
    given = matrices(state, bits={"qkv": 4, "head": 8})
    assert portable(source, given)
    (tmp_path / "out").mkdir()
    copy_quantized(source, tmp_path / "out", given)
    kept = json.loads((tmp_path / "out" / "config.json").read_text())[KEY]["ignore"]
    # linear layers alone: vLLM 0.10 makes one of a table that is named here, and fails
    assert "model.layers.0.mlp.up_proj" in kept and "model.embed_tokens" not in kept
    assert not portable(source, matrices(state, bits={"embed": 8}))
    state = write(tmp_path / "gpt2", tokenizer_folder, SHAPES["gpt2"])
    assert not portable(open_source(tmp_path / "gpt2"), matrices(state, bits={"qkv": 4}))


def change_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        values = json.loads(path.read_text())
        values[KEY] |= changes
        path.write_text(json.dumps(values))

    return change


def change_group(part: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        values = json.loads(path.read_text())
        for group in values[KEY]["config_groups"].values():
            group[part] = (group[part] or {}) | changes
        path.write_text(json.dumps(values))

    return change


def change_tensor(leaf: str, new: Callable[[Tensor], Tensor | None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        name = f"model.layers.1.mlp.up_proj.{leaf}"
        made = new(tensors.pop(name))
        if made is not None:
            tensors[name] = made.contiguous()
        save_file(tensors, path, metadata={"format": "pt"})

    return change


def add_tensor(leaf: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path) | {f"model.layers.1.mlp.up_proj.{leaf}": torch.zeros(3)}
        save_file(tensors, path, metadata={"format": "pt"})

    return change


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def poison(scale: Tensor) -> Tensor:
    scale[3, 1] = float("nan")
    return scale


def without(folder: Path) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    del values[KEY]
    path.write_text(json.dumps(values))


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncate, "truncated"),
    "a NaN scale": (change_tensor("weight_scale", poison), "scale of .*up_proj.* is NaN"),
    "no scale": (change_tensor("weight_scale", lambda _: None), "lacks '.*up_proj.weight_scale'"),
    "no shape": (change_tensor("weight_shape", lambda _: None), "lacks '.*up_proj.weight_shape'"),
    "no integers": (change_tensor("weight_packed", lambda _: None), "missing: .*up_proj.weight"),
    "too few integers": (change_tensor("weight_packed", lambda t: t[:, 1:]), "do not fit together"),
    "too few rows": (change_tensor("weight_packed", lambda t: t[1:]), "do not fit together"),
    "too few scales": (change_tensor("weight_scale", lambda t: t[1:]), "do not fit together"),
    "other groups": (change_tensor("weight_scale", lambda t: t[:, :1]), "groups of 64 columns"),
    "whole scales": (change_tensor("weight_scale", lambda t: t.int()), "do not fit together"),
    "a long shape": (change_tensor("weight_shape", lambda t: t.repeat(2)), "do not fit together"),
    "another shape": (change_tensor("weight_shape", lambda t: t // 2), "do not fit together"),
    "a negative shape": (change_tensor("weight_shape", lambda t: -t), "do not fit together"),
    "a zero point": (add_tensor("weight_zero_point"), "not expected: .*weight_zero_point"),
    "an order of columns": (add_tensor("weight_g_idx"), "not expected: .*weight_g_idx"),
    "no quantisation in the config": (without, "missing: .*not expected: .*weight_shape"),
    "another method": (change_config(quant_method="gptq"), "only 'compressed-tensors'"),
    "another format": (change_config(format="float-quantized"), "'pack-quantized' or"),
    "no groups": (change_config(config_groups={}), "pack-quantized"),
    "a quantised cache": (change_config(kv_cache_scheme={"num_bits": 8}), "kv_cache_scheme"),
    "sparsity": (change_config(sparsity_config={"format": "sparse-24-bitmask"}), "sparsity_config"),
    "rotations": (change_config(transform_config={"R1": {}}), "transform_config"),
    "two bits": (change_group("weights", num_bits=2), "num_bits' is 2, but must be 8 or 4"),
    "floats": (change_group("weights", type="float"), "type' is 'float', but must be 'int'"),
    "zero points": (change_group("weights", symmetric=False), "symmetric' is False"),
    "blocks": (change_group("weights", strategy="block"), "'group' or 'channel'"),
    "no group size": (change_group("weights", group_size=None), "a positive integer"),
    "other schemes": (change_group("weights", group_size=8), "which config.json does not name"),
    "fixed activations": (change_group("input_activations", num_bits=8), "scaled per token"),
    "rounded outputs": (change_group("output_activations", num_bits=8), "must be null"),
}


@pytest.mark.integration
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_read_is_one_error(
    damage: str, tmp_path: Path, tokenizer_folder: Path
) -> None:
    folder = quantized_folder(tmp_path, tokenizer_folder, SHAPES["llama"])
    apply, message = DAMAGES[damage]
    apply(folder)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)
    with pytest.raises(CheckpointError, match=message):
        list(read_quantized(folder))


def test_reading_is_lazy(tmp_path: Path, tokenizer_folder: Path) -> None:
    """A damaged scale is met when its tensor is read, not before."""
    folder = quantized_folder(tmp_path, tokenizer_folder, SHAPES["llama"])
    change_tensor("weight_scale", poison)(folder)
    names = []
    with pytest.raises(CheckpointError, match="NaN"):
        names.extend(name for name, _ in read_quantized(folder))
    found = read_quantized(folder)
    assert [next(found)[0] for _ in range(12)][-1].startswith("layers.1")


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_copy_of_a_quantised_folder_is_not_quantised(
    name: str, tmp_path: Path, tokenizer_folder: Path
) -> None:
    from openllm.checkpoint.copying import copy_model

    folder = quantized_folder(tmp_path, tokenizer_folder, SHAPES[name])
    (tmp_path / "copy").mkdir()
    copy_model(open_source(folder), tmp_path / "copy")
    assert KEY not in json.loads((tmp_path / "copy" / "config.json").read_text())
    shutil.rmtree(tmp_path / "model")
    same = load_model(tmp_path / "copy").state_dict()
    assert all(same[key].equal(tensor) for key, tensor in load_model(folder).state_dict().items())
