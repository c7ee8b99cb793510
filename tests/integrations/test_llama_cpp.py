# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A GGUF file served by llama.cpp answers as the model folder does."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from tests.export.gguf.models import GGUF_SHAPES, QWEN2, byte_level, exported, our_logits, tokens
from tests.export.gguf.models import written as write_folder
from tests.text.strategies import TEXTS
from tests.tiny import random_model

from openllm.core.errors import CheckpointError, ConfigError, TemplateError
from openllm.engine.backends.slot_backend import SlotBackend
from openllm.engine.config import EngineConfig, SpeculationConfig
from openllm.engine.request import SamplingParams, Structure, Update
from openllm.engine.runners.slots import Piece
from openllm.export.gguf.writer import export_gguf
from openllm.integrations.llama_cpp import LlamaModel, llama_backend
from openllm.nn.model import Transformer
from openllm.text.controls import CONTROLS
from openllm.text.load import load_tokenizer

pytest.importorskip("llama_cpp", reason="needs the extra 'llama', which is built from source")

ROUNDING = 5e-3
"""llama.cpp keeps keys and values in float16."""

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|user|>{{ m.content }}<|end_of_turn|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def model() -> Transformer:
    # larger weights: a model of small ones repeats itself from the first token on
    return random_model(GGUF_SHAPES["qwen3"][1], spread=0.3).eval()


@pytest.fixture(scope="module")
def gguf(
    model: Transformer, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    source = write_folder(folder, model, tokenizer_folder)
    (source / "chat_template.jinja").write_text(TEMPLATE)
    export_gguf(source, folder, dtype="f32")
    return folder / "tiny-F32.gguf"


@pytest.fixture
def runtime(gguf: Path) -> AsyncIterator[LlamaModel]:
    made = LlamaModel(gguf, threads=1)
    made.allocate(3)
    yield made
    made.close()


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < ROUNDING * np.abs(expected).max()


def test_facts(runtime: LlamaModel, model: Transformer) -> None:
    assert runtime.vocab_size == model.cfg.vocab_size
    assert runtime.max_positions == model.cfg.max_positions
    assert runtime.parameters == sum(weight.numel() for weight in model.parameters())
    assert runtime.num_bytes == pytest.approx(4 * runtime.parameters, rel=0.01)
    shape = model.cfg.attention
    assert runtime.token_bytes == 2 * 2 * model.cfg.num_layers * shape.kv_heads * shape.head_dim
    assert "qwen3" in runtime.description
    assert runtime.metadata("no such key") is None


def test_slots_apart_and_together(runtime: LlamaModel, model: Transformer) -> None:
    """Texts of different lengths in one run, in pieces, cut, and copied."""
    ids = tokens(60)
    first = runtime.extend([Piece(0, 0, ids[:20], [5, 19]), Piece(2, 0, ids[30:37], [6])])
    assert_close(first[:2], our_logits(model, ids[:20])[[5, 19]])
    assert_close(first[2:], our_logits(model, ids[30:37])[[6]])
    second = runtime.extend([Piece(2, 7, ids[37:60], [22]), Piece(0, 20, ids[20:21], [0])])
    assert_close(second[0], our_logits(model, ids[30:60])[-1])
    assert_close(second[1], our_logits(model, ids[:21])[-1])
    cut = runtime.extend([Piece(0, 10, ids[50:55], [4])])
    assert_close(cut[0], our_logits(model, [*ids[:10], *ids[50:55]])[-1])
    runtime.copy(2, 1, 15)
    runtime.copy(2, 0, 4)
    copied = runtime.extend(
        [
            Piece(0, 4, ids[:3], [2]),
            Piece(1, 15, ids[5:7], [1]),
            Piece(2, 30, ids[:2], [0, 1]),
        ]
    )
    text = ids[30:60]
    assert_close(copied[0], our_logits(model, [*text[:4], *ids[:3]])[-1])
    assert_close(copied[1], our_logits(model, [*text[:15], *ids[5:7]])[-1])
    assert_close(copied[2:], our_logits(model, [*text, *ids[:2]])[-2:])
    assert runtime.extend([Piece(0, 0, ids[:5], [])]).shape == (0, runtime.vocab_size)


@pytest.mark.parametrize("case", ["gemma3", "gpt2", "phi3"])
def test_other_shapes(case: str, tmp_path: Path, tokenizer_folder: Path) -> None:
    """Windows: a text can be cut and copied although its beginning is out of sight."""
    model = random_model(GGUF_SHAPES[case][1], spread=0.2).eval()
    runtime = LlamaModel(exported(tmp_path, model, tokenizer_folder, "f32"), threads=1)
    runtime.allocate(2)
    ids = tokens(60)
    runtime.extend([Piece(0, 0, ids, [])])
    runtime.copy(0, 1, 20)
    found = runtime.extend([Piece(0, 30, ids[:5], [4]), Piece(1, 20, ids[:5], [4])])
    assert_close(found[0], our_logits(model, [*ids[:30], *ids[:5]])[-1])
    assert_close(found[1], our_logits(model, [*ids[:20], *ids[:5]])[-1])
    assert runtime.max_positions == {"phi3": 256}.get(case, 128)
    runtime.close()


async def collect(updates: AsyncIterator[Update]) -> list[Update]:
    return [update async for update in updates]


def open_backend(gguf: Path, **settings: object) -> SlotBackend:
    return llama_backend(gguf, threads=1, **settings)


@pytest.mark.parametrize("kernels", [True, False])
def test_greedy_text_is_that_of_the_model(gguf: Path, model: Transformer, kernels: bool) -> None:
    prompts = [tokens(length) for length in (3, 20, 21, 40)]
    params = SamplingParams(max_new_tokens=15, temperature=0, ignore_eos=True)

    async def main() -> None:
        backend = open_backend(gguf, cfg=EngineConfig(kernels=kernels))
        banned = [*backend.tokenizer.banned_ids]
        found = await asyncio.gather(*[collect(backend.generate(p, params)) for p in prompts])
        for prompt, updates in zip(prompts, found, strict=True):
            ids = list(prompt)
            for _ in range(15):
                logits = our_logits(model, ids)[-1]
                logits[banned] = -np.inf
                ids.append(int(logits.argmax()))
            assert [t for u in updates for t in u.token_ids] == ids[len(prompt) :]
            assert "".join(u.text for u in updates) == backend.tokenizer.decode(
                ids[len(prompt) :], inside=True
            )
            assert updates[-1].finish_reason == "length"
        await backend.close()

    asyncio.run(main())


def test_score_and_chat(gguf: Path, model: Transformer) -> None:
    async def main() -> None:
        backend = open_backend(gguf)
        ids = tokens(30)
        scored = await backend.score(ids)
        logprobs = our_logits(model, ids)
        logprobs = logprobs - np.log(np.exp(logprobs).sum(1, keepdims=True))
        expected = [logprobs[place, token] for place, token in enumerate(ids[1:])]
        assert [one.logprob for one in scored] == pytest.approx(expected, abs=0.05)
        chat = [{"role": "user", "content": "Anna <|end_of_turn|>"}]
        encoded = await backend.encode_chat(chat)
        controls = backend.tokenizer.controls
        assert encoded[:2] == [backend.tokenizer.bos_id, controls["<|user|>"]]
        assert encoded[-2:] == [controls["<|end_of_turn|>"], controls["<|assistant|>"]]
        assert encoded.count(controls["<|end_of_turn|>"]) == 1
        updates = await collect(backend.chat(chat, SamplingParams(max_new_tokens=3)))
        assert updates[-1].finish_reason is not None
        await backend.close()

    asyncio.run(main())


@pytest.mark.parametrize("own", [True, False])
def test_structures(gguf: Path, tokenizer_folder: Path, own: bool) -> None:
    """With the tokenizer of the file, and with ours."""
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"n": {"enum": [1, 22, 333]}}, "required": ["n"]}

    async def main() -> None:
        backend = open_backend(gguf, tokenizer=None if own else tokenizer_folder)
        for kind, value in (("choice", ("yes", "no")), ("json_schema", schema)):
            structure = Structure.model_validate({"kind": kind, "value": value})
            for seed in range(3):
                params = SamplingParams(structure=structure, seed=seed, max_new_tokens=60, top_k=20)
                updates = await collect(backend.generate("Anna?", params))
                text = "".join(update.text for update in updates)
                if kind == "choice":
                    assert text in value
                elif updates[-1].finish_reason == "stop":
                    assert json.loads(text)["n"] in (1, 22, 333)
        await backend.close()

    asyncio.run(main())


def test_info(gguf: Path) -> None:
    backend = open_backend(gguf, cfg=EngineConfig(cache_tokens=300))
    info = backend.info
    assert (info.name, info.kind, info.max_positions) == ("tiny-F32", "llama.cpp", 128)
    assert info.cache_bytes == 2 * 128 * 2 * 2 * 2 * 2 * 16
    asyncio.run(backend.close())


def test_the_tokenizer_of_the_file_is_ours(gguf: Path, tokenizer_folder: Path) -> None:
    backend, ours = open_backend(gguf), load_tokenizer(tokenizer_folder)
    theirs = backend.tokenizer
    assert theirs is not None
    for name in ("vocab_size", "bos_id", "eos_id", "unk_id", "prefix", "byte_ids"):
        assert getattr(theirs, name) == getattr(ours, name), name
    assert theirs.controls == ours.controls
    # llama.cpp knows ends of turns by their names
    assert ours.end_ids <= theirs.end_ids <= ours.end_ids | {ours.controls["<|end_of_turn|>"]}
    for index in range(ours.vocab_size):
        assert theirs.token_bytes(index) == ours.token_bytes(index), index
    asyncio.run(backend.close())


@pytest.fixture(scope="module")
def both(gguf: Path, tokenizer_folder: Path) -> object:
    return load_tokenizer(tokenizer_folder), open_backend(gguf)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
@example(text="".join(CONTROLS))
@example(text=" ☕🙂 Straße\u0000\n\ud800")
def test_texts_are_encoded_as_we_do(both: tuple, text: str) -> None:
    ours, backend = both
    ids = backend.tokenizer.encode(text)
    assert ids == ours.encode(text)
    assert backend.tokenizer.decode(ids) == ours.decode(ids)


def test_byte_level_tokenizer(tmp_path: Path, tokenizer_folder: Path) -> None:
    source = write_folder(tmp_path, random_model(GGUF_SHAPES["llama"][1]), tokenizer_folder)
    for name in ("tokenizer.model", "openllm_tokenizer.json"):
        (source / name).unlink(missing_ok=True)
    byte_level(source, QWEN2)
    content = json.loads((source / "tokenizer.json").read_text())
    content["decoder"] = content["pre_tokenizer"]["pretokenizers"][-1]
    (source / "tokenizer.json").write_text(json.dumps(content))
    export_gguf(source, tmp_path, dtype="f16")
    backend, ours = open_backend(tmp_path / "tiny-F16.gguf"), load_tokenizer(source)
    theirs = backend.tokenizer
    for text in ("Anna found a café ☕🙂", "  two\n\nlines ", "<|eos|>"):
        assert theirs.encode(text) == ours.encode(text)
        assert theirs.decode(theirs.encode(text)) == text
    assert (theirs.bos_id, theirs.eos_id) == (ours.bos_id, ours.eos_id)
    assert theirs.eos_id in theirs.end_ids
    assert theirs.encode_parts(["a", theirs.eos_id, "b"]) == [
        *ours.encode("a"),
        ours.eos_id,
        *ours.encode("b"),
    ]
    asyncio.run(backend.close())


def test_tokenizer_of_a_folder(gguf: Path, tokenizer_folder: Path) -> None:
    backend = open_backend(gguf, tokenizer=tokenizer_folder)
    assert backend.tokenizer.fingerprint == load_tokenizer(tokenizer_folder).fingerprint
    assert backend.template is None
    with pytest.raises(TemplateError):
        asyncio.run(collect(backend.chat([], SamplingParams())))
    asyncio.run(backend.close())


def test_refusals(gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        open_backend(tmp_path / "none.gguf")
    (tmp_path / "bad.gguf").write_bytes(gguf.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="cannot load"):
        open_backend(tmp_path / "bad.gguf")
    with pytest.raises(ConfigError, match="texts of 128 tokens, not 129"):
        open_backend(gguf, context=129)
    with pytest.raises(ConfigError, match="cache would hold 100 tokens"):
        open_backend(gguf, cfg=EngineConfig(cache_tokens=100))
    for cfg in (EngineConfig(precision="int8"), EngineConfig(speculation=SpeculationConfig())):
        with pytest.raises(ConfigError, match="leave these settings out"):
            open_backend(gguf, cfg=cfg)
