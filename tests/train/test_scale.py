# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openllm.core.errors import ConfigError
from openllm.nn.cost import parameters
from openllm.recipes.build import load_config, resolve
from openllm.train.config import PretrainConfig
from openllm.train.scale import apply_scale, model_shape, scaled_settings

VOCAB = 2048


def scaled(*settings: str, vocab_size: int = VOCAB, epoch_tokens: int = 0) -> PretrainConfig:
    return apply_scale(load_config("scaled", settings), vocab_size, epoch_tokens)


@given(st.integers(1_000_000, 1_000_000_000))
def test_blocks_have_about_as_many_parameters_as_asked(scale: int) -> None:
    cfg = resolve(scaled(f"scale={scale}"), VOCAB)
    found = parameters(cfg.model).total - VOCAB * cfg.model.dim
    assert found == pytest.approx(scale, rel=0.3)
    assert cfg.model.dim == cfg.model.attention.num_heads * cfg.model.attention.head_dim


@given(st.integers(1_000_000, 500_000_000))
def test_a_larger_scale_is_nowhere_narrower_and_learns_slower(scale: int) -> None:
    small, large = (scaled_settings(s, 1e9, VOCAB, {}) for s in (scale, 2 * scale))
    assert large["model"]["dim"] >= small["model"]["dim"]
    assert large["optim"]["lr"] <= small["optim"]["lr"]
    assert large["optim"]["weight_decay"] < small["optim"]["weight_decay"]


def test_longer_runs_take_larger_batches_and_larger_vocabularies_slower_rates() -> None:
    short = scaled("duration='1_000_000 tokens'")
    long = scaled("duration='64_000_000 tokens'", vocab_size=16 * VOCAB)
    assert long.batch.tokens == 8 * short.batch.tokens == 16_384
    assert long.optim.adamw.lr == pytest.approx(short.optim.adamw.lr / 8, rel=0.05)


def test_the_dial_at_the_budget_of_tiny_is_tiny() -> None:
    dial = resolve(scaled("scale=3.4M", "duration='900_000 tokens'"), VOCAB)
    tiny = resolve(load_config("tiny"), VOCAB)
    assert dial.model == tiny.model
    assert dial.batch == tiny.batch
    assert dial.optim.lr == tiny.optim.lr
    assert dial.optim.adamw.lr == tiny.optim.adamw.lr


def test_what_the_recipe_sets_wins() -> None:
    cfg = scaled("optim.lr=0.02", "batch.seq_len=512", "model.num_layers=3")
    assert (cfg.optim.lr, cfg.batch.seq_len, cfg.model.num_layers) == (0.02, 512, 3)
    assert cfg.model.dim == model_shape(10_000_000)[0]


def test_rows_of_any_length_fill_a_step() -> None:
    for seq_len in (128, 1000, 8192):
        batch = scaled(f"batch.seq_len={seq_len}").batch
        assert batch.tokens % seq_len == 0 and batch.rows >= batch.micro_rows


def test_laws_take_up_what_the_recipe_sets() -> None:
    usual, large = scaled(), scaled("batch.tokens=32768", "optim.lr=0.001")
    batches, rates = large.batch.tokens / usual.batch.tokens, large.optim.lr / usual.optim.lr
    decays = large.optim.weight_decay / usual.optim.weight_decay
    assert decays == pytest.approx(batches / rates, rel=0.1)
    narrow = scaled("model.mlp.kind=gelu").model
    assert parameters(narrow).mlp == pytest.approx(parameters(usual.model).mlp, rel=0.05)
    assert narrow.mlp.kind == "gelu"


def test_a_resolved_recipe_stays_what_it_is() -> None:
    cfg = resolve(scaled(), VOCAB)
    again = PretrainConfig.parse(cfg.dump(), "test")
    assert resolve(again, VOCAB) == cfg


def test_epochs_are_counted_in_tokens() -> None:
    epochs = scaled("duration='4 epochs'", epoch_tokens=250_000)
    assert epochs.batch == scaled("duration='1_000_000 tokens'").batch


@pytest.mark.parametrize(
    ("recipe", "settings", "words"),
    [
        ("scaled", ["scale=12K"], "'scale': write a number of parameters such as 12M"),
        ("scaled", ["scale=2B"], "less than or equal to 1000000000"),
        ("scaled", ["duration='1 epochs'"], "give it in tokens"),
        ("scaled", ["optim.kind=adamw"], "sets Muon's learning rates"),
        ("tiny", ["scale=9M"], "start from the recipe 'scaled'"),
        ("scaled", ["model.dim=768"], "sets model.dim=384, but the recipe sets 768"),
        ("scaled", ["batch.tokens=1000"], "try 1024"),
    ],
)
def test_what_the_dial_cannot_do_is_said(recipe: str, settings: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        resolve(load_config(recipe, settings), VOCAB)
