# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A traced program gives what the model gives; archives that could run code are refused."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.export.eager import eager_greedy, eager_logits
from tests.tolerances import assert_close

from openllm.checkpoint.model_dir import load_model
from openllm.core.errors import CheckpointError
from openllm.export.pt2.archive import check_archive
from openllm.export.pt2.writer import Pt2Model, export_pt2

TEXT = [7, 300, 12, 55, 408, 6, 9, 101, 33, 34, 35, 36]


def archive(folder: Path, change: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """What torch writes for a tiny program, with its JSON members changed."""
    axis = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        torch.nn.Linear(2, 3), (torch.ones(4, 2),), dynamic_shapes=({0: axis},)
    )
    program.example_inputs, program._guards_code = None, []
    path = folder / "model.pt2"
    torch.export.save(program, path)
    with zipfile.ZipFile(path) as old:
        members = {
            info.filename.partition("/")[2]: old.read(info.filename) for info in old.infolist()
        }
    named = {
        name: json.loads(data) if name.endswith(".json") else data for name, data in members.items()
    }
    if change is not None:
        change(named)
    with zipfile.ZipFile(path, "w") as new:
        for name, value in named.items():
            new.writestr(f"model/{name}", value if isinstance(value, bytes) else json.dumps(value))
    return path


def node(named: dict[str, Any]) -> dict[str, Any]:
    return named["models/model.json"]["graph_module"]["graph"]["nodes"][0]


def weights(named: dict[str, Any]) -> dict[str, Any]:
    return named["data/weights/model_weights_config.json"]["config"]["weight"]


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "a pickled weight": lambda named: weights(named).update(use_pickle=True),
    "no word about pickles": lambda named: weights(named).pop("use_pickle"),
    "a weight elsewhere": lambda named: weights(named).update(path_name="../x"),
    "pickled samples": lambda named: named.update({"data/sample_inputs/model.pt": b"x"}),
    "an old file of weights": lambda named: named.update({"data/weights/model.pt": b"x"}),
    "a custom object": lambda named: named.update({"data/constants/custom_obj_0": b"x"}),
    "a second program": lambda named: named.update({"models/other.json": {}}),
    "compiled code": lambda named: named.update({"data/aotinductor/model/x.so": b"x"}),
    "a guard": lambda named: named["models/model.json"].update(guards_code=["print(1)"]),
    "a function of torch": lambda named: node(named).update(target="torch.load"),
    "a module in torch": lambda named: node(named).update(target="torch.os.system"),
    "a file": lambda named: node(named).update(target="torch.ops.aten.from_file.default"),
    "an extension": lambda named: node(named).update(target="#x"),
    "an operator as argument": lambda named: node(named).update(inputs=[{"as_operator": "x"}]),
    "an expression": lambda named: node(named).update(inputs=[{"expr_str": "exec(chr(49))"}]),
    "a hidden name": lambda named: node(named).update(inputs=[{"expr_str": "s0.__class__"}]),
    "a range": lambda named: named["models/model.json"]["range_constraints"].update(
        {"eval(s1)": 1}
    ),
}


@pytest.mark.integration
def test_what_torch_writes_is_loaded(tmp_path: Path) -> None:
    path = archive(tmp_path)
    check_archive(path)
    assert torch.export.load(path).module()(torch.ones(5, 2)).shape == (5, 3)


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_that_could_run_code_is_refused(name: str, tmp_path: Path) -> None:
    path = archive(tmp_path, HOSTILE[name])
    with pytest.raises(CheckpointError, match=r"could run code|damaged"):
        check_archive(path)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        check_archive(tmp_path / "model.pt2")
    path = archive(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        check_archive(path)


@pytest.mark.integration
def test_logits_streams_and_greedy_text(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    source = model_folder("qwen3")
    export_pt2(source, tmp_path)
    assert b"/export/" not in (tmp_path / "model.pt2").read_bytes()  # no folders of this machine
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (source / name).read_bytes()
    model, runtime = load_model(source), Pt2Model(tmp_path)
    for text in (TEXT, TEXT[:1]):
        assert_close(torch.from_numpy(runtime.logits(text)), eager_logits(model, text))
    found = runtime.layers(TEXT)
    assert len(found) == 2
    assert_close(model.norm(torch.from_numpy(found[-1])), model(torch.tensor([TEXT])).x[0])
    prompts = [TEXT[:4], TEXT[5:6]]
    assert runtime.greedy(prompts, 40) == [eager_greedy(model, p, 40) for p in prompts]
