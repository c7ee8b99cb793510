# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import json
from pathlib import Path

import pytest
from tests.tiny import SHAPES, random_model

from openllm.checkpoint.model_dir import write_model
from openllm.cli.main import main
from openllm.nn.cost import forward_flops, kv_cache_bytes, parameters, train_flops
from openllm.recipes.build import load_config
from openllm.train.forecast import peak_bytes, training_bytes


def inspected(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["model", "inspect", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


SMALLER = ["model.num_layers=1", "model.dim=64", "batch.micro_rows=2", "precision=fp32"]


@pytest.mark.integration
def test_facts_of_a_preset_are_those_of_its_functions(capsys: pytest.CaptureFixture[str]) -> None:
    facts = inspected(capsys, "tiny", *SMALLER)
    cfg = load_config("tiny", SMALLER)
    row = cfg.batch.seq_len
    assert facts["parameters"]["total"] == parameters(cfg.model).total
    assert facts["weights_bytes"] == 4 * parameters(cfg.model).total
    assert facts["flops"]["forward_per_token"] == forward_flops(cfg.model, [row]) / row
    assert facts["flops"]["training_step"] == train_flops(cfg.model, [row] * cfg.batch.rows)
    assert facts["training"]["tensor_bytes"] == training_bytes(cfg)
    assert facts["training"]["peak_bytes"] == peak_bytes(cfg)
    assert facts["kv_cache_bytes_per_token"] == kv_cache_bytes(cfg.model, 1)


@pytest.mark.integration
def test_the_dial_is_turned_before_the_look(capsys: pytest.CaptureFixture[str]) -> None:
    for scale in (1e6, 9e6):
        count = inspected(capsys, "scaled", f"scale={scale:.0f}")["parameters"]
        assert count["attention"] + count["mlp"] == pytest.approx(scale, rel=0.2)


def test_the_tree_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "inspect", "tiny", *SMALLER]) == 0
    text = capsys.readouterr().out
    assert f"{parameters(load_config('tiny', SMALLER).model).total:,} parameters" in text
    for part in ("embeddings", "attention", "MLP", "norms", "head", "KV cache", "MFLOP per token"):
        assert part in text


@pytest.mark.integration
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_model_folder_is_inspected_as_it_is(
    name: str, tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = SHAPES[name]
    weights = random_model(cfg).state_dict()
    write_model(tmp_path, cfg, weights, tokenizer=tokenizer_folder, lineage={}, card="")
    facts = inspected(capsys, str(tmp_path))
    assert facts["parameters"]["total"] == sum(tensor.numel() for tensor in weights.values())
    assert facts["training"]["seq_len"] == cfg.max_positions
    assert main(["model", "inspect", str(tmp_path), "model.dim=8"]) == 2
    assert "settings cannot change its shape" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["smal"], "did you mean 'small'"),
        (["tiny", "model.depth=2"], "unknown key 'model.depth'"),
        (["tiny", "dim"], "key=value"),
        (["absent.yaml"], "does not exist"),
        (["tiny", "scale=9M"], "start from the recipe 'scaled'"),
    ],
)
def test_mistakes_are_told(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "inspect", *words]) == 2
    assert told in capsys.readouterr().err
