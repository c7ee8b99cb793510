# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Adapters in PEFT's folders, both ways, against `peft` on models of `transformers`."""

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parity.families import build, load_quietly, some_tokens
from tests.tolerances import difference
from torch import Tensor

from openllm.checkpoint.adapters import read_adapter, write_adapter
from openllm.checkpoint.model_dir import load_model
from openllm.nn.heads import logits
from openllm.nn.lora import Adapter, LowRank
from openllm.nn.model import Transformer
from openllm.transform.lora import adapter_of, apply_lora, attach, merge_lora
from openllm.transform.lora_config import LoraConfig

ALLOWED = 1e-4
"""Largest difference of two logits in float32, as a share of the largest logit."""

KINDS: dict[str, dict[str, Any]] = {
    "lora": {"lora_alpha": 12},
    "rslora": {"lora_alpha": 5, "use_rslora": True},
    "dora": {"lora_alpha": 12, "use_dora": True},
    "dora-rslora": {"lora_alpha": 3, "use_dora": True, "use_rslora": True},
}
TARGETS: dict[str, list[Any]] = {
    "llama": [["q_proj", "v_proj"], ["k_proj", "o_proj", "up_proj", "down_proj"]],
    "qwen3": ["all-linear", r".*layers\.[02]\.(self_attn|mlp)\.\w+_proj"],
    "phi3": [["qkv_proj", "o_proj"], ["gate_up_proj", "layers.1.mlp.down_proj"]],
    "gpt2": [["c_attn"], ["c_proj", "mlp.c_fc"]],
}
CASES = [(family, number, kind) for family in TARGETS for number in (0, 1) for kind in KINDS]


@pytest.fixture(scope="module")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """Folders as `save_pretrained` writes them."""
    root = tmp_path_factory.mktemp("bases")

    @cache
    def folder(name: str, number: int) -> Path:
        build(name, number).save_pretrained(root / f"{name}-{number}")
        return root / f"{name}-{number}"

    return folder


def randomise(parameters: list[Tensor]) -> None:
    """So that each weight of an adapter matters."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def theirs(base: Path, targets: Any, settings: dict[str, Any], folder: Path) -> Tensor:
    """Write an adapter with PEFT; return its logits."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.LoraConfig(
            r=4, target_modules=targets, lora_dropout=0.1, task_type="CAUSAL_LM", **settings
        )
        model = peft.get_peft_model(load_quietly(base)[0], config)
        randomise([tensor for name, tensor in model.named_parameters() if ".lora_" in name])
        model.save_pretrained(folder)
        return peer_logits(model)


def reopened(base: Path, folder: Path) -> Tensor:
    """The logits of an adapter that PEFT reads, which must be complete for it."""
    import peft

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(load_quietly(base)[0], folder)
    assert not [str(item.message) for item in said if "adapter" in str(item.message).lower()]
    return peer_logits(model)


@torch.no_grad()
def peer_logits(model: Any) -> Tensor:
    return model.eval()(some_tokens()).logits


@torch.no_grad()
def our_logits(model: Transformer) -> Tensor:
    return logits(model.eval()(some_tokens()).x, model.head)


@pytest.mark.integration
@pytest.mark.parametrize(("family", "number", "kind"), CASES, ids=lambda value: str(value))
def test_both_ways(
    family: str, number: int, kind: str, base_of: Callable[[str, int], Path], tmp_path: Path
) -> None:
    base = base_of(family, number)
    expected = theirs(base, TARGETS[family][number], KINDS[kind], tmp_path / "theirs")
    adapter = read_adapter(tmp_path / "theirs", base)
    model = load_model(base)
    plain = our_logits(model)
    assert difference(expected, plain) > 0.05, "the adapter changes too little to compare"
    attach(model, adapter)
    assert difference(our_logits(model), expected) <= ALLOWED
    assert difference(our_logits(merge_lora(model)), expected) <= ALLOWED

    write_adapter(tmp_path / "ours", adapter_of(model), base, name="some/base")
    assert difference(reopened(base, tmp_path / "ours"), expected) <= ALLOWED
    again = read_adapter(tmp_path / "ours", base)
    assert again.changes.keys() == adapter.changes.keys()
    assert (again.dropout, again.rank_stabilised) == (0.1, adapter.rank_stabilised)
    for name, change in adapter.changes.items():
        assert again.changes[name].scale == pytest.approx(change.scale, rel=1e-12)
        for one, two in zip(again.changes[name].tensors(), change.tensors(), strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize("family", TARGETS)
def test_an_adapter_that_we_trained(
    family: str, base_of: Callable[[str, int], Path], tmp_path: Path
) -> None:
    """Its parts have an A each, which a stacked module must join."""
    base = base_of(family, 0)
    targets = ("q_proj", "v_proj", "up_proj", "down_proj")
    model = apply_lora(load_model(base), LoraConfig(rank=3, alpha=6.0, targets=targets))
    randomise([parameter for parameter in model.parameters() if parameter.requires_grad])
    write_adapter(tmp_path / "ours", adapter_of(model), base)
    assert difference(reopened(base, tmp_path / "ours"), our_logits(model)) <= ALLOWED
    again = attach(load_model(base), read_adapter(tmp_path / "ours", base))
    assert difference(our_logits(again), our_logits(model)) <= ALLOWED


def test_ranks_and_alphas_of_single_modules(
    base_of: Callable[[str, int], Path], tmp_path: Path
) -> None:
    base = base_of("llama", 0)
    patterns = {"rank_pattern": {"v_proj": 2, "^model.layers.1.self_attn.q_proj": 7},
                "alpha_pattern": {"layers.0.self_attn.q_proj": 31}}  # fmt: skip
    settings = {"lora_alpha": 9, **patterns}
    expected = theirs(base, ["q_proj", "v_proj"], settings, tmp_path / "theirs")
    adapter = read_adapter(tmp_path / "theirs", base)
    ranks = {name: change.rank for name, change in adapter.changes.items()}
    assert ranks["layers.0.self_attn.v_proj.weight"] == 2
    assert ranks["layers.1.self_attn.q_proj.weight"] == 7
    assert adapter.changes["layers.0.self_attn.q_proj.weight"].scale == 31 / 4
    assert difference(our_logits(attach(load_model(base), adapter)), expected) <= ALLOWED
    write_adapter(tmp_path / "ours", adapter, base)
    assert difference(reopened(base, tmp_path / "ours"), expected) <= ALLOWED


def test_a_few_matrices_of_a_few_layers(
    base_of: Callable[[str, int], Path], tmp_path: Path
) -> None:
    """Names in the file must mean these and no others."""
    base = base_of("gpt2", 0)
    model = load_model(base)
    full = adapter_of(apply_lora(model, LoraConfig(rank=2)))
    names = [name for name in full.changes if "layers.1.self_attn.o_proj" in name]
    names += [name for name in full.changes if "down_proj" in name]
    changes = {name: full.changes[name] for name in names}
    filled = {
        name: LowRank(change.a_RK, torch.ones_like(change.b_NR), change.scale)
        for name, change in changes.items()
    }
    write_adapter(tmp_path / "ours", Adapter(filled), base)
    expected = our_logits(attach(load_model(base), Adapter(filled)))
    assert difference(reopened(base, tmp_path / "ours"), expected) <= ALLOWED
