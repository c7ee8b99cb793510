# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.tiny import SHAPES, random_model

from openllm.checkpoint.adapter_values import READ, read_values
from openllm.checkpoint.adapters import CONFIG, FILES, WEIGHTS, read_adapter, write_adapter
from openllm.checkpoint.model_dir import write_model
from openllm.core.errors import CheckpointError
from openllm.nn.config import GeGLUConfig
from openllm.nn.lora import Adapter, LowRank, adaptable

Change = Callable[[Path], object]
PREFIX = "base_model.model.model.layers."
Q0 = f"{PREFIX}0.self_attn.q_proj."


def some_adapter(shape: str, rank: int = 3, *, dora: bool = False, only: str = "") -> Adapter:
    generator = torch.Generator().manual_seed(rank)
    changes = {}
    for name, module in adaptable(random_model(SHAPES[shape])).items():
        height, width = module.weight.shape
        a_RK, b_NR, magnitude_N = (
            torch.randn(size, generator=generator)
            for size in ((rank, width), (height, rank), (height,))
        )
        if only in name:
            changes[f"{name}.weight"] = LowRank(a_RK, b_NR, 0.75, magnitude_N if dora else None)
    return Adapter(changes)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    root = tmp_path_factory.mktemp("bases")
    odd = SHAPES["gpt2"].model_copy(update={"mlp": GeGLUConfig(hidden_dim=160)})
    for name, cfg in {**SHAPES, "own": odd}.items():
        state = random_model(cfg).state_dict()
        write_model(root / name, cfg, state, tokenizer=tokenizer_folder, lineage={}, card="")
    return root


@pytest.fixture
def folder(bases: Path, tmp_path: Path) -> Path:
    """An adapter of all matrices of the Llama."""
    write_adapter(tmp_path / "adapter", some_adapter("llama"), bases / "llama", name="me/llama")
    return tmp_path / "adapter"


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_written_is_read(shape: str, dora: bool, bases: Path, tmp_path: Path) -> None:
    adapter = some_adapter(shape, dora=dora)
    write_adapter(tmp_path / "adapter", adapter, bases / shape)
    again = read_adapter(tmp_path / "adapter", bases / shape)
    assert again.changes.keys() == adapter.changes.keys()
    for name, module in adaptable(random_model(SHAPES[shape])).items():
        one, two = (found.changes[f"{name}.weight"] for found in (adapter, again))
        assert torch.allclose(two.merge(module.weight), one.merge(module.weight), atol=1e-5), name


def test_a_shape_that_only_we_have(bases: Path, tmp_path: Path) -> None:
    model = random_model(SHAPES["gpt2"].model_copy(update={"mlp": GeGLUConfig(hidden_dim=160)}))
    name, module = list(adaptable(model).items())[-1]
    height, width = module.weight.shape
    change = LowRank(torch.ones(2, width), torch.ones(height, 2), 0.5)
    write_adapter(tmp_path / "adapter", Adapter({f"{name}.weight": change}), bases / "own")
    assert list(read_adapter(tmp_path / "adapter", bases / "own").changes) == [f"{name}.weight"]


def test_the_files_are_those_of_peft(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    values = json.loads((folder / CONFIG).read_text())
    assert (values["peft_type"], values["r"], values["lora_alpha"]) == ("LORA", 3, 2.25)
    assert values["base_model_name_or_path"] == "me/llama"
    assert set(values["target_modules"]) == {
        f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")
    }
    assert values["rank_pattern"] == values["alpha_pattern"] == {}
    state = load_file(folder / WEIGHTS)
    assert state[f"{Q0}lora_A.weight"].shape == (3, 64) and len(state) == 2 * 14


def test_weights_in_half_precision_and_older_names(folder: Path, bases: Path) -> None:
    adapter = read_adapter(folder, bases / "llama")
    state = load_file(folder / WEIGHTS)
    save_file({name: tensor.bfloat16() for name, tensor in state.items()}, folder / WEIGHTS)
    again = read_adapter(folder, bases / "llama")
    for name, change in adapter.changes.items():
        assert torch.equal(again.changes[name].a_RK, change.a_RK.bfloat16().float())
    write_adapter(folder, some_adapter("llama", dora=True), bases / "llama")
    state = load_file(folder / WEIGHTS)
    dotted = {f"{n}.weight" if n.endswith("vector") else n: t for n, t in state.items()}
    assert dotted.keys() != state.keys()
    save_file(dotted, folder / WEIGHTS)
    assert read_adapter(folder, bases / "llama").changes.keys() == adapter.changes.keys()


def config(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        values = json.loads((folder / CONFIG).read_text()) | changes
        (folder / CONFIG).write_text(json.dumps(values))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def apply(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS)

    return apply


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


WRONG: dict[str, tuple[Change, str]] = {
    "no config": (lambda f: (f / CONFIG).unlink(), f"{CONFIG} does not exist; give the folder"),
    "no JSON": (lambda f: (f / CONFIG).write_text("{"), "is not valid JSON"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), f"{WEIGHTS} does not exist"),
    "pickled": (pickled, "pickled weights .* never read"),
    "truncated": (cut, "truncated"),
    "empty": (lambda f: save_file({}, f / WEIGHTS), "holds no tensors"),
    "another method": (config(peft_type="LOHA"), "'peft_type' is 'LOHA', but only LORA"),
    "no method": (config(peft_type=None), "'peft_type' is None"),
    "modules_to_save": (config(modules_to_save=["lm_head"]), "uses 'modules_to_save', which"),
    "layers_to_transform": (config(layers_to_transform=[0]), "uses 'layers_to_transform'"),
    "layer 0 alone": (config(layers_to_transform=0), "uses 'layers_to_transform'"),
    "bias": (config(bias="all"), "uses 'bias'"),
    "lora_bias": (config(lora_bias=True), "uses 'lora_bias'"),
    "tokens": (config(trainable_token_indices=[1]), "uses 'trainable_token_indices'"),
    "unheard of": (config(flux={"a": 1}), "uses 'flux'"),
    "pissa": (config(init_lora_weights="pissa_niter_4"), "changes the weights of the base"),
    "pattern": (config(rank_pattern={".*q": 3}), r"'rank_pattern' has the pattern '\.\*q'"),
    "rank": (config(r=0), "'r' is 0, which is no rank"),
    "many ranks": (config(rank_pattern=[3]), "'rank_pattern' must be a JSON object"),
    "alpha": (config(lora_alpha="x"), "'lora_alpha' is 'x', not a number"),
    "endless alpha": (config(lora_alpha=10**400), "'lora_alpha' is 1000.*, not a number"),
    "alpha of one": (config(alpha_pattern={"q_proj": "NaN"}), "'q_proj' is 'NaN', not a number"),
    "dropout": (config(lora_dropout=1), "'lora_dropout' is 1; it must be"),
    "targets": (config(target_modules=7), "'target_modules' must be a list of names"),
    "flag": (config(use_dora="yes"), "'use_dora' is 'yes'; it must be true or false"),
    "other rank": (config(r=5), "of another shape: .*gate_proj.lora_A.weight is 3 x 64, not 5"),
    "too few targets": (
        config(target_modules=["q_proj"]), f"in {WEIGHTS}, but not named in {CONFIG}: .*k_proj",
    ),
    "missing": (
        tensors(lambda s: [s.pop(f"{Q0}lora_{x}.weight") for x in "AB"]),
        f"named in {CONFIG}, but not in {WEIGHTS}: model.layers.0.self_attn.q_proj",
    ),
    "half": (tensors(lambda s: s.pop(f"{Q0}lora_B.weight")), "without exactly lora_A.weight"),
    "no lengths": (config(use_dora=True), "without exactly .*lora_magnitude_vector"),
    "unknown module": (
        tensors(lambda s: s.update({f"{PREFIX}0.self_attn.qkv.lora_A.weight": torch.ones(3, 64)})),
        "no such matrix in attention or MLP: model.layers.0.self_attn.qkv",
    ),
    "layer too many": (
        tensors(lambda s: s.update({f"{PREFIX}2.mlp.up_proj.lora_A.weight": torch.ones(3, 64)})),
        "no such matrix in attention or MLP: model.layers.2.mlp.up_proj",
    ),
    "head": (
        tensors(lambda s: s.update({"base_model.model.lm_head.lora_A.weight": torch.ones(3, 64)})),
        "no such matrix in attention or MLP: lm_head",
    ),
    "embedding": (
        tensors(lambda s: s.update({f"{PREFIX}e.lora_embedding_A": torch.ones(3, 9)})),
        "more than LoRA of linear layers: .*lora_embedding_A",
    ),
    "saved module": (
        tensors(lambda s: s.update({"base_model.model.lm_head.weight": torch.ones(3, 64)})),
        "more than LoRA of linear layers: base_model.model.lm_head.weight",
    ),
    "integers": (
        tensors(lambda s: s.update({f"{Q0}lora_A.weight": torch.ones(3, 64, dtype=torch.int32)})),
        "not of floating point: model.layers.0.self_attn.q_proj.lora_A.weight is I32",
    ),
    "NaN": (tensors(lambda s: s[f"{Q0}lora_B.weight"][5].fill_(torch.nan)), "holds NaN"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_adapters_are_refused(case: str, folder: Path, bases: Path) -> None:
    change, message = WRONG[case]
    change(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_adapter(folder, bases / "llama")
    assert str(folder) in str(caught.value)


def test_wrong_bases_are_refused(folder: Path, bases: Path, tmp_path: Path) -> None:
    for other, message in (("gpt2", "no such matrix"), ("qwen3", "of another shape")):
        with pytest.raises(CheckpointError, match=f"for another base model: .*{message}"):
            read_adapter(folder, bases / other)
    with pytest.raises(CheckpointError, match="is not a folder"):
        read_adapter(folder / CONFIG, bases / "llama")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_adapter(folder, tmp_path)
    gated = some_adapter("llama", only="gate_proj")
    with pytest.raises(CheckpointError, match="which the base cannot have changed"):
        write_adapter(tmp_path / "new", gated, bases / "gpt2")
    part = some_adapter("gpt2", dora=True, only="q_proj")
    with pytest.raises(CheckpointError, match="DoRA must change all of them or none"):
        write_adapter(tmp_path / "new", part, bases / "gpt2")
    assert not (tmp_path / "new").exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda item: (
        st.lists(item, max_size=3) | st.dictionaries(st.text(max_size=9), item, max_size=3)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(READ)), JSON, max_size=6), st.text(max_size=9))
def test_any_config_is_understood_or_refused(values: dict[str, Any], module: str) -> None:
    given = {"peft_type": "LORA", "target_modules": [], **values}
    try:
        read = read_values(given, "config")
    except CheckpointError as error:
        assert str(error).startswith("config: ")
        return
    assert read.is_target(module) in (True, False, None)
    assert read.rank_of(module) >= 1 and math.isfinite(read.scale_of(module))


def test_which_modules_are_targets() -> None:
    """As PEFT: whole names, or ends of names at a dot; what is excluded is none."""

    def targets(**values: Any) -> Callable[[str], bool | None]:
        return read_values({"peft_type": "LORA", **values}, "config").is_target

    named = targets(target_modules=["q_proj", "model.layers.1.mlp.up_proj"])
    assert named("model.layers.0.self_attn.q_proj") and named("model.layers.1.mlp.up_proj")
    assert named("model.layers.0.self_attn.xq_proj") is named("model.layers.0.mlp.up_proj") is False
    most = targets(target_modules="all-linear", exclude_modules=["mlp.up_proj"])
    assert most("h.0.mlp.down_proj") and most("h.0.mlp.up_proj") is False
    for values in ({"target_modules": "(a+)+b"}, {"target_modules": [], "exclude_modules": "x"}):
        assert targets(**values)("a" * 50) is None  # patterns are not evaluated
