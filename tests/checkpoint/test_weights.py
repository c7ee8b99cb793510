# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from openllm.checkpoint.tensors import Planned, read_header, write_streamed
from openllm.checkpoint.weights import INDEX, WEIGHTS, open_weights, weight_files, write_weights
from openllm.core.errors import CheckpointError

TENSORS = {
    "a.weight": torch.arange(12.0).view(3, 4),
    "b.bias": torch.arange(3, dtype=torch.bfloat16),  # odd, so what follows must be aligned
    "c.weight": torch.arange(20, dtype=torch.float16).view(4, 5),
    "ü/empty": torch.empty(0, 7),
    "scalar": torch.tensor(3.5),
}


def planned(tensors: dict[str, torch.Tensor] = TENSORS) -> list[Planned]:
    """In pieces of five elements."""
    return [
        Planned(name, tensor.dtype, tuple(tensor.shape), tensor.reshape(-1).split(5))
        for name, tensor in tensors.items()
    ]


def test_the_safetensors_library_reads_what_is_streamed(tmp_path: Path) -> None:
    write_streamed(tmp_path / WEIGHTS, planned())
    again = load_file(tmp_path / WEIGHTS)
    assert again.keys() == TENSORS.keys()
    assert all(again[name].equal(tensor) for name, tensor in TENSORS.items())


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / WEIGHTS, metadata={"format": "pt"})
    weights = open_weights(tmp_path)
    assert weights.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        stored = weights.tensors[name]
        assert (stored.dtype, stored.shape) == (tensor.dtype, tuple(tensor.shape))
        assert weights.read(name).equal(tensor)
        pieces = [*weights.pieces(name), torch.empty(0, dtype=tensor.dtype)]
        assert torch.cat(pieces).equal(tensor.reshape(-1))


@pytest.mark.parametrize(("limit", "shards"), [(10**6, 1), (60, 2), (1, 5)])
def test_shards_hold_as_much_as_they_may(limit: int, shards: int, tmp_path: Path) -> None:
    files = write_weights(tmp_path, planned(), limit)
    assert len([path for path in files if path.suffix == ".safetensors"]) == shards
    weights = open_weights(tmp_path)
    assert sorted(weight_files(tmp_path)) == sorted(files)
    assert all(weights.read(name).equal(tensor) for name, tensor in TENSORS.items())
    if shards > 1:
        index = json.loads((tmp_path / INDEX).read_text())
        size = sum(tensor.numel() * tensor.element_size() for tensor in TENSORS.values())
        assert index["metadata"]["total_size"] == size
        assert index["weight_map"].keys() == TENSORS.keys()


def test_shards_may_be_links_to_elsewhere(tmp_path: Path) -> None:
    """As in the cache of the hub."""
    (tmp_path / "snapshot").mkdir()
    for number, path in enumerate(write_weights(tmp_path, planned(), 60)):
        path.rename(tmp_path / f"blob{number}")
        (tmp_path / "snapshot" / path.name).symlink_to(f"../blob{number}")
    weights = open_weights(tmp_path / "snapshot")
    assert weights.read("c.weight").equal(TENSORS["c.weight"])


@given(st.data())
def test_a_damaged_file_is_never_more_than_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / WEIGHTS
    save_file(TENSORS, path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        found = read_header(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:  # only names, or numbers of the same size, can have changed
        assert sum(tensor.size for tensor in found.values()) == 12 * 4 + 3 * 2 + 20 * 2 + 4


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


@pytest.mark.parametrize("old", [False, True])
def test_pickles_are_read_on_request_alone(old: bool, tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not old)
    with pytest.raises(CheckpointError, match="--allow-pickle"):
        open_weights(tmp_path)
    weights = open_weights(tmp_path, allow_pickle=True)
    for name, tensor in TENSORS.items():
        assert weights.read(name).equal(tensor)
        pieces = [*weights.pieces(name), torch.empty(0, dtype=tensor.dtype)]
        assert torch.cat(pieces).equal(tensor.reshape(-1))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    torch.save({"a": Bomb(mark)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="perhaps code"):
        open_weights(tmp_path, allow_pickle=True)
    assert not mark.exists()


def test_pickled_shards(tmp_path: Path) -> None:
    places = {}
    for number, (name, tensor) in enumerate(TENSORS.items()):
        shard = f"pytorch_model-{number}.bin"
        torch.save({name: tensor}, tmp_path / shard)
        places[name] = shard
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    weights = open_weights(tmp_path, allow_pickle=True)
    assert all(weights.read(name).equal(tensor) for name, tensor in TENSORS.items())
    index.write_text(json.dumps({"weight_map": {**places, "a.weight": "pytorch_model-1.bin"}}))
    with pytest.raises(CheckpointError, match=r"'a\.weight', but it does not"):
        open_weights(tmp_path, allow_pickle=True)
