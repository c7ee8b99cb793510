# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.tiny import SHAPES, random_model

from openllm.checkpoint import model_dir
from openllm.checkpoint.card import model_card
from openllm.checkpoint.model_dir import load_model, read_lineage, read_model_config, write_model
from openllm.checkpoint.tensors import save_tensors
from openllm.core.errors import CheckpointError
from openllm.nn.norm import LayerNormConfig

LINEAGE = {
    "made_by": "pretrain",
    "data": {
        "name": "stories",
        "corpus": "user",
        "fingerprint": "f" * 64,
        "sources": [{"name": "tiny", "licence": "CC0-1.0"}, {"name": "notes", "licence": None}],
    },
    "steps": 10,
    "total_steps": 20,
    "tokens_seen": 12345,
    "validation_loss": 3.25,
}


def write(folder: Path, tokenizer: Path, seed: int = 0) -> None:
    cfg = SHAPES["qwen3"]
    weights = random_model(cfg, seed).state_dict()
    card = model_card(cfg, LINEAGE)
    write_model(folder, cfg, weights, tokenizer=tokenizer, lineage=LINEAGE, card=card)


@pytest.fixture
def folder(tmp_path: Path, tokenizer_folder: Path) -> Path:
    write(tmp_path / "model", tokenizer_folder)
    return tmp_path / "model"


def test_the_folder_holds_what_other_tools_look_for(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "generation_config.json",
        "README.md",
        "openllm.json",
    }
    assert not list(folder.glob("*.bin")) and not list(folder.glob("*.p*t"))
    for path in folder.glob("*.json"):
        assert str(folder.parent) not in path.read_text()
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == 2
    assert read_lineage(folder)["format_version"] == 1


def test_the_card_states_facts_and_licences(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert "12,345 tokens" in card and "3.2500 nats/token" in card and "ffff" in card
    assert "tiny: licence CC0-1.0" in card and "notes: licence not stated" in card


def test_the_card_says_who_can_load_the_model() -> None:
    cfg = SHAPES["qwen3"]
    own = cfg.model_copy(update={"norm": LayerNormConfig()})
    public, alone = "loads with `transformers", "only OpenLLM can load this folder"
    assert public in model_card(cfg, LINEAGE) and alone not in model_card(cfg, LINEAGE)
    assert alone in model_card(own, LINEAGE) and public not in model_card(own, LINEAGE)


def test_a_loaded_model_is_for_use_not_for_training(folder: Path) -> None:
    model = load_model(folder)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def test_half_precision_weights_are_widened(folder: Path) -> None:
    state = random_model(SHAPES["qwen3"]).state_dict()
    halves = {f"model.{name}": tensor.bfloat16() for name, tensor in state.items()}
    save_tensors(folder / "model.safetensors", halves)
    model = load_model(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "config.json does not exist"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "copy the whole model folder"),
    "truncated weights": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:-100]
        ),
        "damaged",
    ),
    "no weights but text": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs"),
        "damaged",
    ),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    "config of a list": (
        lambda f: (f / "config.json").write_text("[]"),
        "does not contain a JSON object",
    ),
    "unknown architecture": (
        lambda f: (f / "config.json").write_text('{"model_type": "mamba"}'),
        "architecture 'mamba'",
    ),
    "config that lacks a value": (
        lambda f: (f / "config.json").write_text('{"model_type": "qwen3"}'),
        "'num_attention_heads' is missing",
    ),
    "config of another size": (
        lambda f: (f / "config.json").write_text(
            (f / "config.json").read_text().replace('"hidden_size": 48', '"hidden_size": 64')
        ),
        "do not match its config.json",
    ),
    "config of an enormous size": (
        lambda f: (f / "config.json").write_text(
            (f / "config.json").read_text().replace('"hidden_size": 48', f'"hidden_size": {10**30}')
        ),
        "'hidden_size' is 1000",
    ),
    "config of another depth": (
        lambda f: (f / "config.json").write_text(
            (f / "config.json")
            .read_text()
            .replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
        ),
        "do not match its config.json",
    ),
}


@pytest.mark.parametrize("what", sorted(DAMAGE))
def test_a_damaged_folder_is_one_clear_error(what: str, folder: Path) -> None:
    damage, words = DAMAGE[what]
    damage(folder)
    with pytest.raises(CheckpointError, match=words):
        load_model(folder)


def test_a_newer_format_is_refused(folder: Path) -> None:
    (folder / "openllm.json").write_text('{"format_version": 2}')
    with pytest.raises(CheckpointError, match="upgrade"):
        read_lineage(folder)


def test_a_failed_write_leaves_the_old_model(
    folder: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_model(folder).state_dict()

    def fail(*args: object) -> None:
        raise RuntimeError("the machine is on fire")

    monkeypatch.setattr(model_dir, "write_json", fail)
    with pytest.raises(RuntimeError):
        write(folder, tokenizer_folder, seed=1)
    after = load_model(folder).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_model_whose_replacement_was_killed_is_found(folder: Path) -> None:
    folder.rename(folder.with_name(".model.old"))
    assert read_model_config(folder) == SHAPES["qwen3"]
    assert folder.is_dir() and not folder.with_name(".model.old").exists()
