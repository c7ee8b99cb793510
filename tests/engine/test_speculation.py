# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Guessed tokens change how fast a text comes, never the text; `test_exact.py` tests it too."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.engine.engines import config, make_llm, network, skip_without_kernels
from tests.engine.test_exact import PROMPTS, WISHES
from tests.tiny import SHAPES, VOCAB_SIZE, random_model, sentences

from openllm.checkpoint.model_dir import write_model
from openllm.core.errors import ConfigError
from openllm.engine.core import ModelEngine
from openllm.engine.llm import LLM
from openllm.engine.request import SamplingParams
from openllm.nn.model import Transformer
from openllm.text.load import load_tokenizer
from openllm.text.tokenizer import Tokenizer
from openllm.text.training import TokenizerSettings, train_model, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_folder)


def write(folder: Path, model: Transformer, tokenizer: Path) -> Path:
    write_model(folder, model.cfg, model.state_dict(), tokenizer=tokenizer, lineage={}, card="")
    return folder


@pytest.fixture(scope="module")
def drafts(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> dict[str, Path]:
    """Draft models: the model itself, nearly the same, and one that knows nothing of it."""
    root = tmp_path_factory.mktemp("drafts")
    near = random_model(SHAPES["qwen3"], spread=0.4)
    with torch.no_grad():
        for weight in near.parameters():
            weight.mul_(1 + 0.02 * torch.randn(weight.shape, generator=torch.manual_seed(1)))
    models = {"same": network(), "near": near, "other": random_model(SHAPES["gpt2"], 3)}
    return {name: write(root / name, model, tokenizer_folder) for name, model in models.items()}


def guessing(tokenizer: Tokenizer, runner: str, folder: Path, **settings: Any) -> LLM:
    speculation = {"kind": "model", "model": str(folder), "tokens": 3}
    return make_llm(tokenizer, runner, speculation=speculation, **settings)


@pytest.mark.integration
@pytest.mark.parametrize("runner", ["compiled", "exact"])
@pytest.mark.parametrize(
    "settings", [{}, {"cache_tokens": 128}, {"cache_tokens": 128, "preemption": "swap"}]
)
def test_a_draft_model_changes_nothing(
    tokenizer: Tokenizer, drafts: dict[str, Path], runner: str, settings: dict[str, Any]
) -> None:
    skip_without_kernels(runner)
    expected = make_llm(tokenizer, runner).generate(PROMPTS, WISHES)
    shares = {}
    for name, folder in drafts.items():
        llm = guessing(tokenizer, runner, folder, **settings)
        assert llm.generate(PROMPTS, WISHES) == expected, name
        stats = llm.stats()
        assert stats.free_blocks == stats.blocks and bool(stats.preemptions) == bool(settings)
        shares[name] = stats.accepted_tokens / stats.drafted_tokens
    # penalties count a draft's own text as its prompt, so that the same model may differ
    assert shares["same"] > 0.9 > shares["near"] > shares["other"]


def test_fewer_runs_are_needed(tokenizer: Tokenizer, drafts: dict[str, Path]) -> None:
    params = SamplingParams(temperature=0, max_new_tokens=40, ignore_eos=True)
    llm = guessing(tokenizer, "exact", drafts["same"])
    llm.generate(["Anna"], params)
    stats = llm.stats()
    # the first run reads the prompt; each later one brings three guesses and one more
    assert (stats.steps, stats.drafted_tokens) == (11, 29)
    assert stats.accepted_tokens == stats.drafted_tokens == 40 - stats.steps


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["ngram", "model"])
def test_guesses_end_with_the_context(
    tokenizer: Tokenizer, drafts: dict[str, Path], kind: str
) -> None:
    wish = {"kind": kind, "tokens": 5, "model": str(drafts["same"]) if kind == "model" else None}
    llm = make_llm(tokenizer, "exact", speculation=wish)
    bias = {300: 50.0, 301: 50.0}
    params = SamplingParams(max_new_tokens=500, ignore_eos=True, logit_bias=bias, seed=1)
    for length in range(115, 128):
        ids = [300, 301] * 70
        (found,) = llm.generate([ids[:length]], params)
        assert len(found.token_ids) == 128 - length and found.finish_reason == "length"
        assert [found] == make_llm(tokenizer, "exact").generate([ids[:length]], params)
    assert llm.stats().accepted_tokens


@pytest.mark.integration
def test_a_draft_model_of_a_shorter_context_and_a_smaller_vocabulary(
    tokenizer: Tokenizer, tokenizer_folder: Path, tmp_path: Path
) -> None:
    """It guesses as far as it reaches."""
    large = SHAPES["qwen3"].model_copy(update={"vocab_size": 700})
    short = SHAPES["llama"].model_copy(update={"max_positions": 40})
    folder = write(tmp_path / "short", random_model(short, spread=0.4), tokenizer_folder)
    params = SamplingParams(
        max_new_tokens=60, ignore_eos=True, seed=1, logit_bias={690: 5.0, 300: 9.0}
    )
    found = []
    for speculation in (None, {"kind": "model", "model": str(folder), "tokens": 4}):
        cfg = config("exact", speculation=speculation)
        llm = LLM(random_model(large, spread=0.4), tokenizer, cfg)
        found.append(llm.generate(["Anna", "Boris"], params))
    assert found[0] == found[1]
    assert 0 < llm.stats().drafted_tokens < 4 * 2 * 40


@pytest.mark.integration
def test_a_failing_draft_model_can_go_on_afterwards(
    tokenizer: Tokenizer, drafts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = guessing(tokenizer, "exact", drafts["near"])
    expected = llm.generate(PROMPTS, WISHES)
    step, left = ModelEngine.step, iter(range(1, 10**6))

    def fails(engine: ModelEngine) -> Any:
        if engine is not llm._engine and next(left) == 3:
            raise RuntimeError("out of memory")
        return step(engine)

    monkeypatch.setattr(ModelEngine, "step", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        llm.generate(PROMPTS, WISHES)
    assert llm.generate(PROMPTS, WISHES) == expected


def test_a_draft_model_with_another_tokenizer_is_refused(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    trained = train_model(sentences(300, 2), TokenizerSettings(vocab_size=VOCAB_SIZE))
    write_tokenizer(tmp_path / "tokenizer", trained, {})
    folder = write(tmp_path / "m", network(), tmp_path / "tokenizer")
    with pytest.raises(ConfigError, match="another tokenizer; choose one with the same"):
        guessing(tokenizer, "exact", folder)


@pytest.mark.parametrize("kind", ["int8", "bf16"])
def test_a_draft_model_runs_in_the_same_precision(
    tokenizer: Tokenizer, drafts: dict[str, Path], kind: str
) -> None:
    skip_without_kernels(kind)
    expected = make_llm(tokenizer, kind).generate(PROMPTS, WISHES)
    assert guessing(tokenizer, kind, drafts["same"]).generate(PROMPTS, WISHES) == expected
