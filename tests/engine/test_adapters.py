# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Adapters chosen by request."""

import asyncio
from pathlib import Path

import pytest
from tests.tiny import SHAPES, random_model
from tests.transform.test_adapter_bank import make_adapter

from openllm.checkpoint.adapter_modules import Base
from openllm.checkpoint.adapters import write_adapter
from openllm.checkpoint.families.registry import FAMILIES
from openllm.checkpoint.model_dir import write_model
from openllm.core.errors import CheckpointError, ConfigError
from openllm.engine.backends.local import LocalBackend
from openllm.engine.config import EngineConfig
from openllm.engine.llm import LLM
from openllm.engine.request import Completion, SamplingParams, TokenLogprob
from openllm.nn.kernels.library import available
from openllm.nn.lora import Adapter
from openllm.nn.model import Transformer
from openllm.transform.adapter_bank import AdapterBank
from openllm.transform.lora import attach, detach, merge_lora

PROMPTS = ["Anna", "On day 3 Boris asked", "Clara found a lamp in the café."]
GREEDY = SamplingParams(max_new_tokens=12, temperature=0, ignore_eos=True)
SHAPE = "llama"


@pytest.fixture(scope="module")
def adapters() -> dict[str, Adapter]:
    return {
        "poems": make_adapter(SHAPE, 1), "law": make_adapter(SHAPE, 2, "dora"),
        "maths": make_adapter(SHAPE, 3, "rslora", targets=("q_proj", "down_proj")),
    }  # fmt: skip


@pytest.fixture(scope="module")
def folders(
    adapters: dict[str, Adapter], tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path
) -> Path:
    """The base model and its adapters."""
    root = tmp_path_factory.mktemp("adapters")
    write(root / "base", model(), tokenizer_folder)
    for name, adapter in adapters.items():
        write_adapter(root / name, adapter, root / "base")
    return root


def write(folder: Path, model: Transformer, tokenizer: Path) -> None:
    write_model(folder, model.cfg, model.state_dict(), tokenizer=tokenizer, lineage={}, card="")


def model() -> Transformer:
    return random_model(SHAPES[SHAPE], spread=0.3)


def config(*, exact: bool = False, kernels: bool = False) -> EngineConfig:
    return EngineConfig(precision="fp32", cache_tokens=4096, exact=exact, kernels=kernels)


def ids(completions: list[Completion]) -> list[list[int]]:
    return [completion.token_ids for completion in completions]


@pytest.mark.integration
@pytest.mark.parametrize("exact", [False, True])
def test_a_request_with_an_adapter_is_one_to_the_merged_model(
    exact: bool, adapters: dict[str, Adapter], folders: Path
) -> None:
    llm = LLM.load(folders / "base", config(exact=exact))
    for name in adapters:
        llm.load_adapter(name, folders / name)
    plain = ids(llm.generate(PROMPTS, GREEDY))
    assert plain == ids(LLM.load(folders / "base", config(exact=exact)).generate(PROMPTS, GREEDY))
    for name, adapter in adapters.items():
        merged = LLM(detach(merge_lora(attach(model(), adapter))), llm.tokenizer, config())
        found = ids(llm.generate(PROMPTS, GREEDY, adapter=name))
        assert found == ids(merged.generate(PROMPTS, GREEDY)) != plain
    assert ids(llm.generate(PROMPTS, GREEDY)) == plain, "no prefix may be shared with an adapter"
    llm.unload_adapter("poems")
    with pytest.raises(ConfigError, match="no adapter 'poems'; loaded: law, maths"):
        llm.generate(PROMPTS, GREEDY, adapter="poems")


@pytest.mark.skipif(not available(), reason="needs a compiler")
def test_the_compiled_kernels_add_adapters(adapters: dict[str, Adapter], folders: Path) -> None:
    llm = LLM.load(folders / "base", config(kernels=True))
    plain = ids(llm.generate(PROMPTS, GREEDY))
    for name in ("maths", "poems"):
        llm.load_adapter(name, folders / name)
    for name in ("maths", "poems"):
        merged = detach(merge_lora(attach(model(), adapters[name])))
        expected = ids(LLM(merged, llm.tokenizer, config(kernels=True)).generate(PROMPTS, GREEDY))
        assert ids(llm.generate(PROMPTS, GREEDY, adapter=name)) == expected != plain
    with pytest.raises(ConfigError, match="'poems' is DoRA, which needs the weights; merge it"):
        llm.load_adapter("poems", folders / "law")
    assert ids(llm.generate(PROMPTS, GREEDY)) == plain
    assert ids(llm.generate(PROMPTS, GREEDY, adapter="poems")) == expected


def test_an_adapter_stays_if_its_replacement_is_refused(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LLM.load(folders / "base", config())
    for name in ("maths", "poems"):
        llm.load_adapter(name, folders / name)
    before = [ids(llm.generate(PROMPTS, GREEDY, adapter=name)) for name in ("maths", "poems")]

    def refuse(bank: AdapterBank) -> None:
        raise ConfigError("this runner computes no DoRA")

    with monkeypatch.context() as patch:
        patch.setattr(llm._engine._runner, "set_adapters", refuse)
        for name in ("maths", "law"):  # one that is there, and one that is new
            with pytest.raises(ConfigError, match="no DoRA"):
                llm.load_adapter(name, folders / "law")
    assert llm.info.adapters == ("maths", "poems")
    after = [ids(llm.generate(PROMPTS, GREEDY, adapter=name)) for name in ("maths", "poems")]
    assert after == before


def test_wrong_adapters_are_refused(folders: Path, tmp_path: Path) -> None:
    llm = LLM.load(folders / "base", config())
    with pytest.raises(CheckpointError, match="is not a folder"):
        llm.load_adapter("poems", tmp_path / "poems")
    write_adapter(
        tmp_path / "qwen", make_adapter("qwen3", 0), Base.of(SHAPES["qwen3"], FAMILIES["qwen3"])
    )
    with pytest.raises(CheckpointError, match="for another base model"):
        llm.load_adapter("poems", tmp_path / "qwen")
    assert llm.generate(["Anna"], GREEDY)


async def answer(backend: LocalBackend, prompt: str, adapter: str | None) -> list[TokenLogprob]:
    params = GREEDY.model_copy(update={"logprobs": 3})
    updates = [update async for update in backend.generate(prompt, params, adapter=adapter)]
    assert updates[-1].finish_reason == "length", updates[-1].error
    return [item for update in updates for item in update.logprobs or ()]


def test_exact_answers_do_not_depend_on_the_adapters_of_others(
    adapters: dict[str, Adapter], folders: Path
) -> None:
    """All at once, and one after another: the same bits."""
    asks = [(prompt, name) for prompt in PROMPTS for name in (None, *adapters)]

    async def run(llm: LLM, *, together: bool) -> list[list[TokenLogprob]]:
        backend = llm.backend()
        try:
            if together:
                return await asyncio.gather(*(answer(backend, *ask) for ask in asks))
            return [await answer(backend, *ask) for ask in asks]
        finally:
            await backend.close()

    found = []
    for together in (True, False):
        llm = LLM.load(folders / "base", config(exact=True))
        for name in adapters:
            llm.load_adapter(name, folders / name)
        found.append(asyncio.run(run(llm, together=together)))
        assert (llm.stats().steps < 12 * len(asks)) == together
    assert found[0] == found[1]
    assert len({str(answers) for answers in found[0]}) == len(asks)
