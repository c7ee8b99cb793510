# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import SHAPES, random_model
from tests.tolerances import assert_close

from openllm.checkpoint.adapters import read_adapter, write_adapter
from openllm.checkpoint.families.registry import architecture
from openllm.checkpoint.model_dir import load_model, read_lineage, write_model
from openllm.checkpoint.quantized_copy import copy_quantized
from openllm.checkpoint.source import open_source
from openllm.checkpoint.tensors import Planned
from openllm.checkpoint.weights import write_weights
from openllm.cli.main import main
from openllm.evaluate.training_text import read_lineage as read_training
from openllm.nn.quantized import Scheme
from openllm.transform.lora import adapter_of, apply_lora, attach, lora_state, merge_lora
from openllm.transform.lora_config import LoraConfig
from openllm.transform.quantize import quantize

CARD = "---\nlicense: apache-2.0\n---\n# A model\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Callable[..., Path]:
    """A folder with `base`, in two shards, and an adapter for it."""

    def make(shape: str, kind: str) -> Path:
        root, model_cfg = tmp_path_factory.mktemp("merge"), SHAPES[shape]
        state = random_model(model_cfg).state_dict()
        write_model(
            root / "base", model_cfg, state, tokenizer=tokenizer_folder, lineage={}, card=CARD
        )
        whole = load_file(root / "base" / "model.safetensors")
        (root / "base" / "model.safetensors").unlink()
        planned = [Planned(n, t.dtype, tuple(t.shape), [t]) for n, t in whole.items()]
        assert len(write_weights(root / "base", planned, 300_000)) > 2
        targets = ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")
        lora = {"kind": kind, "rank": 4, "alpha": 8, "targets": targets}
        cfg = LoraConfig.parse(lora, "test")
        model = apply_lora(load_model(root / "base"), cfg)
        generator = torch.Generator().manual_seed(1)
        for tensor in lora_state(model).values():
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
        write_adapter(root / "poems", adapter_of(model), root / "base")
        return root

    return make


@pytest.fixture
def folders(made: Callable[..., Path]) -> Path:
    return made("llama", "lora")


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
@pytest.mark.parametrize("shape", ["llama", "gpt2", "gemma2"])
def test_the_merged_model_is_the_base_with_its_adapter(
    shape: str, kind: str, made: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = made(shape, kind)
    out = root / "out"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert main(["merge", str(root / "base"), str(root / "poems"), str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["changed"], facts["family"]) == (10, architecture(SHAPES[shape]))
    assert before == {path: path.read_bytes() for path in before}
    expected = attach(load_model(root / "base"), read_adapter(root / "poems", root / "base"))
    tokens = torch.randint(4, 600, (2, 20), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        unmerged, merged = expected(tokens).x, load_model(out)(tokens).x
    assert_close(merged, unmerged)
    base = load_model(root / "base").state_dict()
    again = merge_lora(expected).state_dict()
    for name, tensor in load_model(out).state_dict().items():
        assert torch.equal(tensor, again[name])
        assert torch.equal(tensor, base[name]) == (f"{name[:-6]}lora_A" not in again), name


def test_lineage_and_card(folders: Path) -> None:
    out = folders / "out"
    for _ in range(2):  # a model may be replaced
        assert main(["merge", str(folders / "base"), str(folders / "poems"), str(out)]) == 0
    lineage = read_lineage(out)
    assert [parent["name"] for parent in lineage["parents"]] == ["base", "poems"]
    assert lineage["parents"][0]["fingerprint"] != lineage["parents"][1]["fingerprint"]
    assert {"config.json", "adapter_config.json", "adapter_model.safetensors"} <= set(
        lineage["files"]
    )
    assert (lineage["licence"], lineage["ranks"]) == ("apache-2.0", [4])
    card = (out / "README.md").read_text()
    assert "# base with poems" in card and "licence of the base: apache-2.0" in card
    assert (out / "tokenizer.json").read_bytes() == (folders / "base/tokenizer.json").read_bytes()
    assert read_training(out) is None


def test_other_dtypes_and_shards(folders: Path) -> None:
    out = folders / "out"
    arguments = ["merge", str(folders / "base"), str(folders / "poems"), str(out)]
    assert main([*arguments, "--dtype", "bf16"]) == 0
    assert open_source(out).dtype() == torch.bfloat16
    assert main(arguments) == 0
    exact = load_model(out).state_dict()
    assert main([*arguments, "--dtype", "bf16"]) == 0
    for name, tensor in load_model(out, dtype=torch.bfloat16).state_dict().items():
        assert torch.equal(tensor, exact[name].bfloat16())


def test_a_quantised_base(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it stands for, with the adapter; in floating point, for sums do not fit its grid."""
    source, target = open_source(folders / "base"), folders / "quantised"
    target.mkdir()
    state = load_model(folders / "base").state_dict()
    names = ("layers.0.self_attn.q_proj.weight", "layers.1.mlp.up_proj.weight")
    copy_quantized(source, target, {name: quantize(state[name], Scheme(8, 16)) for name in names})
    out = folders / "out"
    assert main(["merge", str(target), str(folders / "poems"), str(out)]) == 0
    assert "is quantised; the result has" in capsys.readouterr().err
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    adapter = read_adapter(folders / "poems", folders / "base")
    expected = merge_lora(attach(load_model(target), adapter)).state_dict()
    merged = load_model(out).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in merged.items())
    assert not torch.equal(load_model(target).state_dict()[names[1]], state[names[1]])


def test_values_beyond_fp16_are_refused(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = read_adapter(folders / "poems", folders / "base")
    for change in adapter.changes.values():
        change.b_NR.mul_(1e6)
    write_adapter(folders / "poems", adapter, folders / "base")
    arguments = ["merge", str(folders / "base"), str(folders / "poems"), str(folders / "out")]
    assert main([*arguments, "--dtype", "fp16"]) == 1
    assert "too large for float16; choose another --dtype" in capsys.readouterr().err
    assert not (folders / "out").exists()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "ROOT/poems", "ROOT/out"], "nowhere does not exist"),
        (["ROOT/base", "ROOT/nowhere", "ROOT/out"], "nowhere is not a folder"),
        (["ROOT/base", "ROOT/base", "ROOT/out"], "adapter_config.json does not exist"),
        (["ROOT/other", "ROOT/poems", "ROOT/out"], "for another base model"),
        (["ROOT/base", "ROOT/poems", "ROOT/base"], "contains other files"),
        (["ROOT/base", "ROOT/poems", "ROOT/poems"], "contains other files"),
        (["ROOT/base", "ROOT/poems", "ROOT/poems/new"], "lie in each other"),
        (["ROOT/base", "ROOT/poems", "ROOT/base/new"], "lie in each other"),
        (["ROOT/bare", "ROOT/poems", "ROOT/out"], "has no tokenizer"),
        (["ROOT/base", "ROOT/poems", "ROOT/out", "--max-shard", "3"], "at least 1MB"),
    ],
)
def test_refusals(
    arguments: list[str], words: str, folders: Path, capsys: pytest.CaptureFixture[str],
    tokenizer_folder: Path,
) -> None:  # fmt: skip
    (folders / "base" / "notes.txt").write_text("mine")
    shutil.copytree(folders / "base", folders / "bare")
    for name in ("tokenizer.json", "tokenizer.model"):
        (folders / "bare" / name).unlink(missing_ok=True)
    state = random_model(SHAPES["gpt2"]).state_dict()
    write_model(
        folders / "other", SHAPES["gpt2"], state, tokenizer=tokenizer_folder, lineage={}, card=""
    )
    arguments = [item.replace("ROOT", str(folders)) for item in arguments]
    before = sorted(folders.rglob("*"))
    assert main(["merge", *arguments]) in (1, 2)
    assert words in capsys.readouterr().err
    assert sorted(folders.rglob("*")) == before
